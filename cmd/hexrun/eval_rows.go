package main

import (
	"fmt"
	"math"
	"strings"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/human"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/kld"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/report"
)

// rows returns one for each setting whose windows are all measured, in the order of the settings, up to the first that is not.
func (r *evalRun) rows() []report.EvalRow {
	var rows []report.EvalRow
	for _, s := range r.settings {
		var results []kld.Result
		for _, w := range r.windows {
			if got, ok := r.kept.Find(r.key(s, w)); ok {
				results = append(results, got)
			}
		}
		if len(results) < len(r.windows) {
			break
		}
		row := evalRow(s, results)
		row.Model, row.Text = r.origin.Model, r.textNames()
		rows = append(rows, row)
	}
	return rows
}

// evalRow sums up the windows of one setting.
func evalRow(s setting, results []kld.Result) report.EvalRow {
	row := report.EvalRow{Cache: s.cache, Label: s.label, Windows: len(results), NCtx: results[0].NCtx,
		KVBytes: results[0].KVBytes, BitsPerElement: results[0].BitsPerElement}
	windows := make([][]kld.Row, len(results))
	refined := 0.0
	for i, r := range results {
		windows[i] = r.Rows
		row.NTokens += len(r.Rows)
		refined += r.RefinedCells
	}
	row.RefinedCells = int(math.Round(refined / float64(len(results))))
	sum, between := kld.SummarizeWindows(windows), kld.Bootstrap(windows)
	row.KLDMean, row.KLDMedian, row.KLDP999, row.KLDLast64 = sum.Mean, sum.Median, sum.P999, sum.Last64
	row.KLDSecondHalf, row.SameTop1, row.PPL = sum.SecondHalf, sum.SameTop1, sum.PPL
	for _, f := range []struct {
		from   kld.Interval
		lo, hi **float64
	}{
		{between.Mean, &row.KLDMeanLo, &row.KLDMeanHi}, {between.Last64, &row.KLDLast64Lo, &row.KLDLast64Hi},
		{between.SecondHalf, &row.KLDSecondHalfLo, &row.KLDSecondHalfHi}, {between.SameTop1, &row.SameTop1Lo, &row.SameTop1Hi},
		{between.PPL, &row.PPLLo, &row.PPLHi},
	} {
		if f.from.Known {
			*f.lo, *f.hi = &f.from.Lo, &f.from.Hi
		}
	}
	return row
}

func (r *evalRun) textNames() string {
	names := make([]string, len(r.texts))
	for i, t := range r.texts {
		names[i] = t.name
	}
	return strings.Join(names, ", ")
}

// title says what a table of rows is about.
func (r *evalRun) title(rows []report.EvalRow) string {
	return fmt.Sprintf("%s, %s of %s tokens of %s, KL divergence from f16 in nats (steps of %d tokens)%s; the first row is the floor",
		r.origin.Model, plural(len(r.windows), "window"), human.Count(r.size), r.textNames(), r.step, aboutIntervals(rows[0].KLDMeanLo != nil))
}

// aboutIntervals is the part of a title that says whether numbers have some.
func aboutIntervals(known bool) string {
	if known {
		return ", 95 % intervals"
	}
	return ", too little for intervals"
}
