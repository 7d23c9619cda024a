package report

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/human"
)

// EvalRow is what hexrun eval kld measured for one cache: the keys of [Row] that it measures, and 95 % intervals, which are
// null in JSON and empty in CSV where the text is too short to tell.
type EvalRow struct {
	Cache           string   `json:"cache"`            // specification; "floor" for f16 in other steps
	Label           string   `json:"label"`            // for tables
	Windows         int      `json:"windows"`          // of text
	NCtx            int      `json:"n_ctx"`            // cells allocated
	NTokens         int      `json:"n_tokens"`         // of all windows
	KVBytes         uint64   `json:"kv_bytes"`         // allocated for the cache
	BitsPerElement  float64  `json:"bits_per_element"` // the same per element of K and V
	RefinedCells    int      `json:"refined_cells"`    // at the end of a window, mean over windows, layers and KV heads, rounded
	KLDMean         float64  `json:"kld_mean"`         // KL(f16 || cache), nats
	KLDMeanLo       *float64 `json:"kld_mean_lo"`
	KLDMeanHi       *float64 `json:"kld_mean_hi"`
	KLDMedian       float64  `json:"kld_median"`
	KLDP999         float64  `json:"kld_p999"`
	KLDLast64       float64  `json:"kld_last64"` // of each window
	KLDLast64Lo     *float64 `json:"kld_last64_lo"`
	KLDLast64Hi     *float64 `json:"kld_last64_hi"`
	KLDSecondHalf   float64  `json:"kld_second_half"` // of each window
	KLDSecondHalfLo *float64 `json:"kld_second_half_lo"`
	KLDSecondHalfHi *float64 `json:"kld_second_half_hi"`
	SameTop1        float64  `json:"same_top1"`
	SameTop1Lo      *float64 `json:"same_top1_lo"`
	SameTop1Hi      *float64 `json:"same_top1_hi"`
	PPL             float64  `json:"ppl"`
	PPLLo           *float64 `json:"ppl_lo"`
	PPLHi           *float64 `json:"ppl_hi"`
	Model           string   `json:"model"` // name of its file
	Text            string   `json:"text"`  // names of the texts
}

// WriteEval prints rows in one of [Formats].
func WriteEval(w io.Writer, format string, rows []EvalRow) error {
	return encode(w, format, rows, writeEvalMarkdown, writeEvalCSV)
}

func writeEvalCSV(w io.Writer, rows []EvalRow) error {
	c := csv.NewWriter(w)
	c.Write([]string{"cache", "label", "windows", "n_ctx", "n_tokens", "kv_bytes", "bits_per_element", "refined_cells",
		"kld_mean", "kld_mean_lo", "kld_mean_hi", "kld_median", "kld_p999", "kld_last64", "kld_last64_lo", "kld_last64_hi",
		"kld_second_half", "kld_second_half_lo", "kld_second_half_hi", "same_top1", "same_top1_lo", "same_top1_hi", "ppl", "ppl_lo", "ppl_hi", "model", "text"})
	for _, r := range rows {
		c.Write([]string{r.Cache, r.Label, strconv.Itoa(r.Windows), strconv.Itoa(r.NCtx), strconv.Itoa(r.NTokens),
			strconv.FormatUint(r.KVBytes, 10), real(r.BitsPerElement), strconv.Itoa(r.RefinedCells),
			real(r.KLDMean), end(r.KLDMeanLo), end(r.KLDMeanHi), real(r.KLDMedian), real(r.KLDP999),
			real(r.KLDLast64), end(r.KLDLast64Lo), end(r.KLDLast64Hi),
			real(r.KLDSecondHalf), end(r.KLDSecondHalfLo), end(r.KLDSecondHalfHi),
			real(r.SameTop1), end(r.SameTop1Lo), end(r.SameTop1Hi), real(r.PPL), end(r.PPLLo), end(r.PPLHi), r.Model, r.Text})
	}
	c.Flush()
	return c.Error()
}

// writeEvalMarkdown is for people: rounded, with units, intervals in brackets.
func writeEvalMarkdown(w io.Writer, rows []EvalRow) error {
	t := Table{Head: []string{"cache", "KV cache", "bits", "of f16", "refined", "KL mean", "median", "99.9 %", "last 64",
		"2nd half", "same top-1", "PPL"}}
	for _, r := range rows {
		t.Rows = append(t.Rows, []string{r.Label, human.Bytes(r.KVBytes), fmt.Sprintf("%.2f", r.BitsPerElement),
			human.Percent(r.BitsPerElement / 16), refined(r.RefinedCells),
			between(human.Divergence, r.KLDMean, r.KLDMeanLo, r.KLDMeanHi), human.Divergence(r.KLDMedian), human.Divergence(r.KLDP999),
			between(human.Divergence, r.KLDLast64, r.KLDLast64Lo, r.KLDLast64Hi),
			between(human.Divergence, r.KLDSecondHalf, r.KLDSecondHalfLo, r.KLDSecondHalfHi),
			between(percent, r.SameTop1, r.SameTop1Lo, r.SameTop1Hi) + " %",
			between(perplexity, r.PPL, r.PPLLo, r.PPLHi)})
	}
	return t.Write(w)
}

// end is an end of an interval in CSV.
func end(x *float64) string {
	if x == nil {
		return ""
	}
	return real(*x)
}

// between writes a number with its interval, if there is one.
func between(write func(float64) string, x float64, lo, hi *float64) string {
	if lo == nil || hi == nil || (*lo == x && *hi == x) {
		return write(x)
	}
	return fmt.Sprintf("%s [%s, %s]", write(x), write(*lo), write(*hi))
}

func percent(x float64) string    { return fmt.Sprintf("%.1f", 100*x) }
func perplexity(x float64) string { return fmt.Sprintf("%.2f", x) }
