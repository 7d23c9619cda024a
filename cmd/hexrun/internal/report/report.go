// Package report prints the rows of hexrun compare.
package report

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/human"
)

// Row is what was measured for one cache. The keys are those of csv, json and jsonl, in this order.
type Row struct {
	Cache          string  `json:"cache"`            // as in --caches
	NCtx           int     `json:"n_ctx"`            // cells allocated
	NTokens        int     `json:"n_tokens"`         // tokens of text
	KVBytes        uint64  `json:"kv_bytes"`         // allocated for the cache: codes, scales, refinements, maps, scores
	BitsPerElement float64 `json:"bits_per_element"` // the same per element of K and V; f16 has 16
	RefinedCells   int     `json:"refined_cells"`    // cells with a refinement, mean over layers and KV heads, rounded
	ComputeBytes   uint64  `json:"compute_bytes"`    // compute buffers
	RSSPeakBytes   uint64  `json:"rss_peak_bytes"`   // of a process that opened only this cache
	PPTPS          float64 `json:"pp_tps"`           // prefill tokens per second
	TGTPS          float64 `json:"tg_tps"`           // decode tokens per second, at the end of the text
	KLDMean        float64 `json:"kld_mean"`         // KL(f16 || cache), nats
	KLDMedian      float64 `json:"kld_median"`
	KLDP999        float64 `json:"kld_p999"`        // 99.9 % quantile
	KLDLast64      float64 `json:"kld_last64"`      // mean of the last 64 positions
	KLDSecondHalf  float64 `json:"kld_second_half"` // mean of the second half
	SameTop1       float64 `json:"same_top1"`       // share of positions whose likeliest token is that of f16
	PPL            float64 `json:"ppl"`
}

// Formats lists the values of -o.
var Formats = []string{"md", "csv", "json", "jsonl"}

// Write prints rows in one of [Formats].
func Write(w io.Writer, format string, rows []Row) error {
	return encode(w, format, rows, writeMarkdown, writeCSV)
}

// encode serves every kind of row; only JSON knows its keys by itself.
func encode[R any](w io.Writer, format string, rows []R, asMarkdown, asCSV func(io.Writer, []R) error) error {
	switch format {
	case "md":
		return asMarkdown(w, rows)
	case "csv":
		return asCSV(w, rows)
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(append([]R{}, rows...)) // [] and not null
	case "jsonl":
		e := json.NewEncoder(w)
		for _, r := range rows {
			if err := e.Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("%q is no output format; use %s", format, strings.Join(Formats, ", "))
}

func writeCSV(w io.Writer, rows []Row) error {
	c := csv.NewWriter(w)
	c.Write([]string{"cache", "n_ctx", "n_tokens", "kv_bytes", "bits_per_element", "refined_cells", "compute_bytes",
		"rss_peak_bytes", "pp_tps", "tg_tps", "kld_mean", "kld_median", "kld_p999", "kld_last64", "kld_second_half",
		"same_top1", "ppl"})
	whole := func(n uint64) string { return strconv.FormatUint(n, 10) }
	for _, r := range rows {
		c.Write([]string{r.Cache, strconv.Itoa(r.NCtx), strconv.Itoa(r.NTokens), whole(r.KVBytes), real(r.BitsPerElement),
			strconv.Itoa(r.RefinedCells), whole(r.ComputeBytes), whole(r.RSSPeakBytes), real(r.PPTPS), real(r.TGTPS), real(r.KLDMean),
			real(r.KLDMedian), real(r.KLDP999), real(r.KLDLast64), real(r.KLDSecondHalf), real(r.SameTop1), real(r.PPL)})
	}
	c.Flush()
	return c.Error()
}

// real is a number of CSV, exact.
func real(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }

// refined is the cells with a refinement, for people.
func refined(cells int) string {
	if cells == 0 {
		return "-"
	}
	return human.Count(cells)
}

// writeMarkdown is for people: rounded, with units, and with the share of f16.
func writeMarkdown(w io.Writer, rows []Row) error {
	t := Table{Head: []string{"cache", "KV cache", "bits", "of f16", "refined", "compute", "peak RSS", "prefill t/s",
		"decode t/s", "KL mean", "median", "99.9 %", "last 64", "2nd half", "same top-1", "PPL"}}
	for _, r := range rows {
		t.Rows = append(t.Rows, []string{r.Cache, human.Bytes(r.KVBytes), fmt.Sprintf("%.2f", r.BitsPerElement),
			human.Percent(r.BitsPerElement / 16), refined(r.RefinedCells), human.Bytes(r.ComputeBytes), human.Bytes(r.RSSPeakBytes),
			human.Rate(r.PPTPS), human.Rate(r.TGTPS), human.Divergence(r.KLDMean), human.Divergence(r.KLDMedian),
			human.Divergence(r.KLDP999), human.Divergence(r.KLDLast64), human.Divergence(r.KLDSecondHalf),
			human.Percent(r.SameTop1), fmt.Sprintf("%.3f", r.PPL)})
	}
	return t.Write(w)
}
