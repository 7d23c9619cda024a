package kld

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// naive computes log-softmax of both rows, then the sum, with 200-bit sums of float64 exponentials.
func naive(ref, other []float32, next int) Row {
	logSoftmax := func(x []float32) []float64 {
		top := float64(x[argmax(x)])
		sum := new(big.Float).SetPrec(200)
		for _, v := range x {
			sum.Add(sum, big.NewFloat(math.Exp(float64(v)-top)))
		}
		total, _ := sum.Float64()
		out := make([]float64, len(x))
		for i, v := range x {
			out[i] = float64(v) - top - math.Log(total)
		}
		return out
	}
	p, q := logSoftmax(ref), logSoftmax(other)
	kl := new(big.Float).SetPrec(200)
	for i := range p {
		kl.Add(kl, big.NewFloat(math.Exp(p[i])*(p[i]-q[i])))
	}
	r := Row{SameTop: argmax(ref) == argmax(other), NLL: math.NaN()}
	r.KL, _ = kl.Float64()
	if next >= 0 {
		r.NLL = -q[next]
	}
	return r
}

func randomRow(r *rand.Rand, n int, scale, offset float64) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64()*scale + offset)
	}
	return x
}

func TestCompareMatchesNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, noise := range []float64{1e-4, 1e-2, 1, 30} {
		for range 20 {
			ref := randomRow(r, 5000, 4, -300)
			other := make([]float32, len(ref))
			for i, v := range ref {
				other[i] = v + float32(noise*r.NormFloat64()) + 17
			}
			next := r.IntN(len(ref))
			got, want := Compare(ref, other, next), naive(ref, other, next)
			assert.InDelta(t, want.KL, got.KL, 1e-10+1e-9*want.KL)
			assert.InDelta(t, want.NLL, got.NLL, 1e-9)
			assert.Equal(t, want.SameTop, got.SameTop)
		}
	}
}

func TestCompareIdenticalIsExactlyZero(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		x := randomRow(r, 1000, 10, 100)
		row := Compare(x, append([]float32(nil), x...), 0)
		require.Zero(t, row.KL)
		require.True(t, row.SameTop)
	}
}

func TestCompareEdges(t *testing.T) {
	inf := float32(math.Inf(-1))
	row := Compare([]float32{0, inf, 1}, []float32{0, inf, 1}, -1)
	assert.Zero(t, row.KL, "entries that cannot come add nothing")
	assert.True(t, math.IsNaN(row.NLL))
	assert.True(t, math.IsInf(Compare([]float32{0, 0}, []float32{0, inf}, 0).KL, 1))
	assert.True(t, math.IsNaN(Compare([]float32{0, 0}, []float32{0, float32(math.NaN())}, 0).KL))
	assert.InDelta(t, math.Log(2), Compare([]float32{1, 1}, []float32{3, 3}, 1).NLL, 1e-12)
	assert.Equal(t, 1, Top([]float32{0, 2, 2}))
}

func TestSummarize(t *testing.T) {
	rows := make([]Row, 1001)
	for i := range rows {
		rows[i] = Row{KL: float64(i), SameTop: i%4 == 0, NLL: 2}
	}
	rows[1000].NLL = math.NaN()
	s := Summarize(rows)
	assert.Equal(t, Summary{Mean: 500, Median: 500, P999: 999, Last64: 968.5, SecondHalf: 750, SameTop1: 251.0 / 1001, PPL: math.Exp(2)}, s)
	assert.True(t, s.Finite())

	one := Summarize([]Row{{KL: 3, NLL: math.NaN()}})
	assert.Equal(t, Summary{Mean: 3, Median: 3, P999: 3, Last64: 3, SecondHalf: 3, PPL: 1}, one)
	assert.False(t, Summarize([]Row{{KL: math.NaN()}}).Finite())
}

func BenchmarkCompare(b *testing.B) {
	r := rand.New(rand.NewPCG(5, 6))
	x, y := randomRow(r, 49152, 4, 0), randomRow(r, 49152, 4, 0)
	for b.Loop() {
		Compare(x, y, 7)
	}
}
