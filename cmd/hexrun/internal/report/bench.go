package report

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/human"
)

// BenchRow is what hexrun bench measured for one test on one cache.
type BenchRow struct {
	Model          string   `json:"model"`     // file
	Cache          string   `json:"cache"`     // as in --caches
	NPrompt        int      `json:"n_prompt"`  // tokens that are read in a round; 0: the test decodes
	NGen           int      `json:"n_gen"`     // tokens that are decoded one at a time in a round
	NDepth         int      `json:"n_depth"`   // tokens in the cache before
	NCtx           int      `json:"n_ctx"`     // cells allocated
	Batch          int      `json:"n_batch"`   // -b
	UBatch         int      `json:"n_ubatch"`  // -ub
	Threads        int      `json:"n_threads"` // 0: physical cores
	KVBytes        uint64   `json:"kv_bytes"`  // allocated for the cache
	BitsPerElement float64  `json:"bits_per_element"`
	Rounds         int      `json:"rounds"`
	TPS            float64  `json:"tps"`          // tokens per second of the best round
	TPSMedian      float64  `json:"tps_median"`   // of the middle one
	TPSF16         *float64 `json:"tps_f16"`      // of f16 in the same test; null when it is not in --caches
	RatioToF16     *float64 `json:"ratio_to_f16"` // tps/tps_f16: above 1 is faster
}

// Test names a test as llama-bench does: "pp512 @ d2048".
func (r BenchRow) Test() string {
	name := fmt.Sprintf("pp%d", r.NPrompt)
	if r.NPrompt == 0 {
		name = fmt.Sprintf("tg%d", r.NGen)
	}
	if r.NDepth > 0 {
		name += fmt.Sprintf(" @ d%d", r.NDepth)
	}
	return name
}

// WriteBench prints rows in one of [Formats].
func WriteBench(w io.Writer, format string, rows []BenchRow) error {
	return encode(w, format, rows, writeBenchMarkdown, writeBenchCSV)
}

func writeBenchCSV(w io.Writer, rows []BenchRow) error {
	c := csv.NewWriter(w)
	c.Write([]string{"model", "cache", "n_prompt", "n_gen", "n_depth", "n_ctx", "n_batch", "n_ubatch", "n_threads", "kv_bytes",
		"bits_per_element", "rounds", "tps", "tps_median", "tps_f16", "ratio_to_f16"})
	maybe := func(x *float64) string {
		if x == nil {
			return ""
		}
		return real(*x)
	}
	for _, r := range rows {
		c.Write([]string{r.Model, r.Cache, strconv.Itoa(r.NPrompt), strconv.Itoa(r.NGen), strconv.Itoa(r.NDepth), strconv.Itoa(r.NCtx),
			strconv.Itoa(r.Batch), strconv.Itoa(r.UBatch), strconv.Itoa(r.Threads), strconv.FormatUint(r.KVBytes, 10),
			real(r.BitsPerElement), strconv.Itoa(r.Rounds), real(r.TPS), real(r.TPSMedian), maybe(r.TPSF16), maybe(r.RatioToF16)})
	}
	c.Flush()
	return c.Error()
}

func writeBenchMarkdown(w io.Writer, rows []BenchRow) error {
	t := Table{Head: []string{"cache", "KV cache", "bits", "threads", "test", "t/s", "median", "of f16"}}
	for _, r := range rows {
		threads, ratio := strconv.Itoa(r.Threads), "-"
		if r.Threads == 0 {
			threads = "cores"
		}
		if r.RatioToF16 != nil {
			ratio = fmt.Sprintf("%.2fx", *r.RatioToF16)
		}
		t.Rows = append(t.Rows, []string{r.Cache, human.Bytes(r.KVBytes), fmt.Sprintf("%.2f", r.BitsPerElement), threads, r.Test(),
			human.Rate(r.TPS), human.Rate(r.TPSMedian), ratio})
	}
	return t.Write(w)
}
