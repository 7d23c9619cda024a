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

// Each window has a second half and last positions of its own.
func TestSummarizeWindows(t *testing.T) {
	windows := make([][]Row, 2)
	for w := range windows {
		for i := range 200 {
			windows[w] = append(windows[w], Row{KL: float64(1000*w + i), SameTop: w == 0, NLL: float64(w)})
		}
	}
	s := SummarizeWindows(windows)
	assert.Equal(t, 599.5, s.Mean)
	assert.Equal(t, (149.5+1149.5)/2, s.SecondHalf)
	assert.Equal(t, (167.5+1167.5)/2, s.Last64)
	assert.Equal(t, 0.5, s.SameTop1)
	assert.Equal(t, math.Exp(0.5), s.PPL)
	assert.Equal(t, Summarize(windows[1]), SummarizeWindows(windows[1:]))
}

func TestIntervals(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	windows := make([][]Row, 4)
	for w := range windows {
		for i := range 1024 {
			row := Row{KL: r.ExpFloat64(), SameTop: r.IntN(10) > 0, NLL: 3 + r.NormFloat64()}
			if i == 1023 {
				row.NLL = math.NaN()
			}
			windows[w] = append(windows[w], row)
		}
	}
	s, b := SummarizeWindows(windows), Bootstrap(windows)
	for _, c := range []struct {
		Interval
		value, width float64
	}{
		{b.Mean, s.Mean, 4 / math.Sqrt(4096)}, {b.SecondHalf, s.SecondHalf, 4 / math.Sqrt(2048)}, {b.Last64, s.Last64, 4 / math.Sqrt(256)},
		{b.SameTop1, s.SameTop1, 4 * 0.3 / math.Sqrt(4096)}, {b.PPL, s.PPL, s.PPL * 4 / math.Sqrt(4096)},
	} {
		assert.True(t, c.Known)
		assert.Less(t, c.Lo, c.value)
		assert.Less(t, c.value, c.Hi)
		assert.InEpsilon(t, c.width, c.Hi-c.Lo, 0.6)
	}
	one := Bootstrap(windows[:1])
	assert.True(t, one.Mean.Known)
	assert.False(t, one.Last64.Known, "one block")

	same := make([]Row, 512)
	for i := range same {
		same[i] = Row{SameTop: true, NLL: 2}
	}
	b = Bootstrap([][]Row{same})
	assert.Equal(t, Interval{0, 0, true}, b.Mean)
	assert.Equal(t, Interval{1, 1, true}, b.SameTop1)
	assert.Equal(t, Interval{math.Exp(2), math.Exp(2), true}, b.PPL)
}

func BenchmarkCompare(b *testing.B) {
	r := rand.New(rand.NewPCG(5, 6))
	x, y := randomRow(r, 49152, 4, 0), randomRow(r, 49152, 4, 0)
	for b.Loop() {
		Compare(x, y, 7)
	}
}
