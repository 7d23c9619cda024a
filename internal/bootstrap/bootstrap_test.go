package bootstrap

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/stat/distuv"
)

// correlated returns n exponential-like values of mean 1 whose neighbours resemble each other.
func correlated(r *rand.Rand, n int, keep float64) []float64 {
	x := make([]float64, n)
	x[0] = r.ExpFloat64()
	for i := 1; i < n; i++ {
		if x[i] = r.ExpFloat64(); r.Float64() < keep {
			x[i] = x[i-1]
		}
	}
	return x
}

// Of many intervals, about 95 % hold the true mean, also where neighbours resemble each other and blocks are few.
func TestCoverage(t *testing.T) {
	for _, c := range []struct {
		windows, length int
		keep, least     float64
	}{
		{32, 64, 0, 0.92}, {4, 1024, 0.8, 0.92}, {1, 1000, 0.8, 0.91}, {1, 512, 0.5, 0.90}, {4, 64, 0.5, 0.83},
	} {
		r := rand.New(rand.NewPCG(1, 2))
		held := 0
		const trials = 600
		for range trials {
			var s Sample
			for range c.windows {
				s.Add(correlated(r, c.length, c.keep))
			}
			lo, hi, ok := s.Interval()
			require.True(t, ok)
			require.LessOrEqual(t, lo, hi)
			if lo <= 1 && 1 <= hi {
				held++
			}
		}
		share := float64(held) / trials
		t.Logf("%d windows of %d values: %.1f %%", c.windows, c.length, 100*share)
		assert.Greater(t, share, c.least, "%+v", c)
		assert.Less(t, share, 0.985, "%+v", c)
	}
}

// Independent normal values have a known interval.
func TestWidth(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var s Sample
	const n = 64 * 400
	values := make([]float64, n)
	for i := range values {
		values[i] = 5 + r.NormFloat64()
	}
	s.Add(values)
	lo, hi, ok := s.Interval()
	require.True(t, ok)
	assert.InEpsilon(t, 2*normalQuantile/math.Sqrt(n), hi-lo, 0.15)
	assert.InDelta(t, 5, (lo+hi)/2, 0.02)
}

func TestStudent(t *testing.T) {
	for freedom := LeastBlocks - 1; freedom < 200; freedom++ {
		want := distuv.StudentsT{Sigma: 1, Nu: float64(freedom)}.Quantile(0.5 + Level/2)
		assert.InEpsilon(t, want, studentQuantile(freedom), 0.01, freedom)
	}
	assert.InDelta(t, 0.025, tail(1e6), 1e-5)
	assert.Less(t, tail(LeastBlocks), 0.001)
}

func TestEdges(t *testing.T) {
	var s Sample
	s.Add(make([]float64, 3*Block))
	_, _, ok := s.Interval()
	assert.False(t, ok, "three blocks")
	s.Add([]float64{0})
	lo, hi, ok := s.Interval()
	assert.True(t, ok, "four, one of them short")
	assert.Zero(t, lo)
	assert.Zero(t, hi)
	s.Add([]float64{0, 7})
	lo, hi, _ = s.Interval()
	again, top, _ := s.Interval()
	assert.Equal(t, [2]float64{lo, hi}, [2]float64{again, top}, "the seed is fixed")
	assert.Zero(t, lo)
	assert.Positive(t, hi)
}
