// Package bootstrap estimates how far a mean over text would move with other text of the same kind.
//
// Neighbouring positions resemble each other, so single positions say less than their number suggests. The blocks of 64
// consecutive positions of each window are drawn again instead, with replacement, 1,000 times and with a fixed seed: the same
// values always give the same interval, and rows of one table are drawn alike.
//
// The interval is the expanded percentile interval (Hesterberg 2015, "What Teachers Should Know about the Bootstrap"): with few
// blocks plain percentiles are too narrow, and the level is moved so that the interval of normal values is as wide as Student's.
// It covers what chance does within these texts; other texts, models or machines may differ by more.
package bootstrap

import (
	"math"
	"math/rand/v2"
	"slices"
)

const (
	Block     = 64 // positions
	Resamples = 1000
	Level     = 0.95 // share of such intervals that hold the true mean
	// LeastBlocks that give an interval. Of fewer, even the extremes of all resamples miss the mean too often.
	LeastBlocks = 4
)

const normalQuantile = 1.959963984540054 // of 0.975

// Sample collects the values of windows. The zero value is empty.
type Sample struct {
	sums   []float64 // of blocks
	counts []int     // of positions in them
}

// Add appends the consecutive values of one window, or of a part of it. Its last block may be shorter.
func (s *Sample) Add(values []float64) {
	for len(values) > 0 {
		n := min(Block, len(values))
		sum := 0.0
		for _, v := range values[:n] {
			sum += v
		}
		s.sums, s.counts = append(s.sums, sum), append(s.counts, n)
		values = values[n:]
	}
}

// Interval returns the 95 % interval of the mean; ok is false with fewer than [LeastBlocks] blocks.
func (s *Sample) Interval() (lo, hi float64, ok bool) {
	n := len(s.sums)
	if n < LeastBlocks {
		return 0, 0, false
	}
	r := rand.New(rand.NewPCG(64, 1000)) // fixed
	means := make([]float64, Resamples)
	for i := range means {
		sum, count := 0.0, 0
		for range n {
			at := r.IntN(n)
			sum += s.sums[at]
			count += s.counts[at]
		}
		means[i] = sum / float64(count)
	}
	slices.Sort(means)
	tail := tail(n)
	return quantile(means, tail), quantile(means, 1-tail), true
}

// tail returns the share of resamples below the interval of n blocks; 0.025 for many.
func tail(n int) float64 {
	wide := studentQuantile(n-1) * math.Sqrt(float64(n)/float64(n-1))
	return math.Erfc(wide/math.Sqrt2) / 2
}

// studentQuantile returns the 0.975 quantile of Student's distribution, by Abramowitz and Stegun 26.7.5; 1 % too small for
// three degrees of freedom, much closer for more.
func studentQuantile(freedom int) float64 {
	const z = normalQuantile
	v := float64(freedom)
	z3, z5, z7 := z*z*z, z*z*z*z*z, z*z*z*z*z*z*z
	return z + (z3+z)/(4*v) + (5*z5+16*z3+3*z)/(96*v*v) + (3*z7+19*z5+17*z3-15*z)/(384*v*v*v)
}

// quantile interpolates between neighbours.
func quantile(sorted []float64, p float64) float64 {
	at := p * float64(len(sorted)-1)
	low := int(at)
	if low+1 >= len(sorted) || sorted[low] == sorted[low+1] {
		return sorted[low]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}
