package kld

import (
	"math"

	"github.com/hexkv/hexkv/internal/bootstrap"
)

// Interval is a 95 % interval within the windows that were read, see package bootstrap.
type Interval struct {
	Lo, Hi float64
	Known  bool // false: the windows are too few or too short to tell
}

// Intervals are those of the fields of [Summary].
type Intervals struct {
	Mean, SecondHalf, Last64, SameTop1, PPL Interval
}

// Bootstrap returns the intervals of [SummarizeWindows].
func Bootstrap(windows [][]Row) Intervals {
	var kl, second, last, same, nll bootstrap.Sample
	for _, rows := range windows {
		v := valuesOf(rows)
		kl.Add(v.kl)
		second.Add(v.secondHalf())
		last.Add(v.last64())
		same.Add(v.same)
		nll.Add(v.nll)
	}
	ppl := intervalOf(&nll)
	if ppl.Known {
		ppl.Lo, ppl.Hi = math.Exp(ppl.Lo), math.Exp(ppl.Hi)
	}
	return Intervals{Mean: intervalOf(&kl), SecondHalf: intervalOf(&second), Last64: intervalOf(&last), SameTop1: intervalOf(&same), PPL: ppl}
}

func intervalOf(s *bootstrap.Sample) Interval {
	lo, hi, known := s.Interval()
	return Interval{lo, hi, known}
}
