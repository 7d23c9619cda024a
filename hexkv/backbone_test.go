package hexkv

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/mat"
)

// Degrees and certificate of the expander, for the layers x KV heads of common models, against a singular value that
// gonum computes from the same edges.
func TestExpander(t *testing.T) {
	for _, c := range []struct{ layers, heads, degree, blocks int }{
		{30, 3, 6, 64}, {30, 3, 3, 40}, {32, 8, 16, 40}, {48, 8, 24, 40}, {80, 8, 40, 40},
	} {
		t.Run(fmt.Sprintf("%dx%d,%d", c.layers, c.heads, c.degree), func(t *testing.T) {
			pairs := c.layers * c.heads
			period := pairs / c.degree
			cells := period * c.blocks
			g, err := NewBackbone("expander", 1, pairs, c.degree, cells)
			require.NoError(t, err)
			assert.Equal(t, [3]int{pairs, c.degree, period}, [3]int{g.Pairs, g.Degree, g.Period})

			cellDegree := make([]int, cells)
			b := mat.NewDense(pairs, cells, nil)
			weight := 1 / math.Sqrt(float64(c.degree)*float64(c.blocks)) // of an edge, normalised by both degrees
			for pair := range pairs {
				for slot := range c.blocks {
					cell := g.Cell(pair, slot)
					require.GreaterOrEqual(t, cell, slot*period)
					require.Less(t, cell, (slot+1)*period, "a pair has one cell in each block")
					cellDegree[cell]++
					b.Set(pair, cell, weight)
				}
			}
			for cell, d := range cellDegree {
				require.Equal(t, c.degree, d, "degree of cell %d", cell)
			}

			var svd mat.SVD
			require.True(t, svd.Factorize(b, mat.SVDNone))
			sigma := svd.Values(nil)
			assert.InDelta(t, 1, sigma[0], 1e-9)
			assert.InDelta(t, sigma[1], g.Sigma2, 1e-7)
			dl, dr := float64(c.degree), float64(c.blocks)
			bound := (math.Sqrt(dl-1) + math.Sqrt(dr-1)) / math.Sqrt(dl*dr)
			assert.InDelta(t, bound, g.Ramanujan, 1e-9)
			assert.InDelta(t, sigma[1]/bound, g.Factor, 1e-6)
			assert.LessOrEqual(t, sigma[1], 1.1*bound)
		})
	}
}

func TestBackboneIsDeterministic(t *testing.T) {
	for _, kind := range []string{"expander", "random", "strided"} {
		a, err := NewBackbone(kind, 5, 90, 6, 1500)
		require.NoError(t, err, kind)
		b, err := NewBackbone(kind, 5, 90, 6, 1500)
		require.NoError(t, err, kind)
		for slot := range 100 {
			assert.Equal(t, a.Cell(17, slot), b.Cell(17, slot))
		}
	}
}

func TestBackboneRefusesNonsense(t *testing.T) {
	for _, c := range []struct {
		kind                 string
		pairs, degree, cells int
	}{{"nonsense", 90, 6, 1500}, {"expander", 0, 6, 1500}, {"expander", 90, 7, 1500}, {"expander", 90, -6, 1500}, {"expander", 90, 6, -1},
		{"expander", 1 << 40, 6, 10}} {
		_, err := NewBackbone(c.kind, 1, c.pairs, c.degree, c.cells)
		assert.ErrorIs(t, err, ErrInvalidConfig, "%+v", c)
	}
	g, err := NewBackbone("expander", 1, 90, 6, 1500)
	require.NoError(t, err)
	for _, at := range [][2]int{{-1, 0}, {90, 0}, {0, -1}, {0, 1 << 30}, {1 << 40, 0}} {
		assert.Equal(t, -1, g.Cell(at[0], at[1]), "%v", at)
	}
}
