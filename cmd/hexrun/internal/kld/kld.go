// Package kld measures how far the predictions of one cache are from those of another.
package kld

import (
	"math"
	"slices"
)

// Row compares the predictions for one position.
type Row struct {
	KL      float64 // KL(reference || other), in nats
	SameTop bool    // both prefer the same token
	NLL     float64 // -log of the other's probability of the token that came; NaN when none came
}

// Compare returns KL(ref || other) and the rest of a [Row] from two rows of logits of one length; next is the token that
// came, or -1. It reads each row twice: once for its largest entry, once for all sums, in float64. Identical rows give
// exactly 0.
func Compare(ref, other []float32, next int) Row {
	other = other[:len(ref)]
	topRef, topOther := argmax(ref), argmax(other)
	maxRef, maxOther := float64(ref[topRef]), float64(other[topOther])

	// With p = exp(a - A)/P and q = exp(b - B)/Q:  sum p log(p/q) = sum p (a - b) - (A - B) - log P + log Q.
	var sumRef, sumOther, diff float64
	for i, x := range ref {
		a, b := float64(x), float64(other[i])
		p := math.Exp(a - maxRef)
		sumRef += p
		sumOther += math.Exp(b - maxOther)
		if p > 0 {
			diff += p * (a - b)
		}
	}
	logRef, logOther := math.Log(sumRef), math.Log(sumOther)
	row := Row{
		KL:      diff/sumRef - (maxRef - maxOther) - (logRef - logOther),
		SameTop: topRef == topOther,
		NLL:     math.NaN(),
	}
	if row.KL < 0 && row.KL > -1e-9 { // rounding
		row.KL = 0
	}
	if next >= 0 {
		row.NLL = maxOther + logOther - float64(other[next])
	}
	return row
}

// Top returns the index of the largest entry, the first of equals.
func Top(logits []float32) int { return argmax(logits) }

func argmax(x []float32) int {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return best
}

// Summary says it for a whole text.
type Summary struct {
	Mean, Median, P999 float64 // of KL over all positions
	Last64             float64 // mean KL of the last 64 positions
	SecondHalf         float64 // mean KL of the second half of the positions
	SameTop1           float64 // share of positions
	PPL                float64 // perplexity of the other
}

// Summarize needs at least one row.
func Summarize(rows []Row) Summary { return SummarizeWindows([][]Row{rows}) }

// SummarizeWindows says it for several windows of text: the second half is that of each window, and so are the last 64.
func SummarizeWindows(windows [][]Row) Summary {
	var kl, same, nll, second, last []float64
	for _, rows := range windows {
		v := valuesOf(rows)
		kl, same, nll = append(kl, v.kl...), append(same, v.same...), append(nll, v.nll...)
		second, last = append(second, v.secondHalf()...), append(last, v.last64()...)
	}
	s := Summary{Mean: mean(kl), Last64: mean(last), SecondHalf: mean(second), SameTop1: mean(same), PPL: 1}
	if len(nll) > 0 {
		s.PPL = math.Exp(mean(nll))
	}
	slices.Sort(kl)
	s.Median, s.P999 = quantile(kl, 0.5), quantile(kl, 0.999)
	return s
}

// values are the rows of a window in columns.
type values struct {
	kl, same []float64
	nll      []float64 // without the positions that nothing follows
}

func valuesOf(rows []Row) values {
	var v values
	for _, r := range rows {
		v.kl = append(v.kl, r.KL)
		same := 0.0
		if r.SameTop {
			same = 1
		}
		v.same = append(v.same, same)
		if !math.IsNaN(r.NLL) {
			v.nll = append(v.nll, r.NLL)
		}
	}
	return v
}

func (v values) secondHalf() []float64 { return v.kl[len(v.kl)/2:] }
func (v values) last64() []float64     { return v.kl[max(0, len(v.kl)-64):] }

func mean(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v
	}
	return sum / float64(len(x))
}

// quantile interpolates between the neighbours, as llama-perplexity does.
func quantile(sorted []float64, p float64) float64 {
	at := p * float64(len(sorted)-1)
	low := int(at)
	if low+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}

// Finite reports whether all numbers of s are finite: NaN means that a cache gave logits that are no numbers.
func (s Summary) Finite() bool {
	for _, v := range []float64{s.Mean, s.Median, s.P999, s.Last64, s.SecondHalf, s.SameTop1, s.PPL} {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return false
		}
	}
	return true
}

// NLL returns the negative logarithm of the probability that logits give to a token, in nats.
func NLL(logits []float32, token int) float64 {
	max := float64(logits[argmax(logits)])
	sum := 0.0
	for _, x := range logits {
		sum += math.Exp(float64(x) - max)
	}
	return math.Log(sum) + max - float64(logits[token])
}
