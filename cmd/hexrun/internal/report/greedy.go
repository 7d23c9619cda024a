package report

import (
	"encoding/csv"
	"io"
	"slices"
	"strconv"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/human"
)

// GreedyRow is what hexrun eval greedy measured for one cache.
type GreedyRow struct {
	Cache        string `json:"cache"` // specification; "floor" for f16 with the prompt in other steps
	Label        string `json:"label"`
	Prompts      int    `json:"prompts"`
	Predict      int    `json:"predict"`       // tokens of a continuation, at most
	Tokens       int    `json:"tokens"`        // mean length: a continuation that loops is cut
	PartedLow    int    `json:"parted_low"`    // tokens in common with f16: lower quartile
	PartedMedian int    `json:"parted_median"` // median
	PartedHigh   int    `json:"parted_high"`   // upper quartile
	Same         int    `json:"same"`          // continuations that had not parted at the end, or when a loop was cut
	Loops        int    `json:"loops"`         // continuations that end in a loop
	Free         int    `json:"free"`          // continuations of f16 that do not
	LoopsOfOwn   int    `json:"loops_own"`     // loops among those that are free in f16
	LoopsLeft    int    `json:"loops_left"`    // none where f16 has one
	Model        string `json:"model"`         // name of its file
	Text         string `json:"text"`          // name of the text
}

// Quartiles returns the elements of rank n/4, n/2 and 3n/4.
func Quartiles(values []int) (low, median, high int) {
	if len(values) == 0 {
		return 0, 0, 0
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return sorted[n/4], sorted[n/2], sorted[min(n-1, 3*n/4)]
}

// WriteGreedy prints rows in one of [Formats].
func WriteGreedy(w io.Writer, format string, rows []GreedyRow) error {
	return encode(w, format, rows, writeGreedyMarkdown, writeGreedyCSV)
}

func writeGreedyCSV(w io.Writer, rows []GreedyRow) error {
	c := csv.NewWriter(w)
	c.Write([]string{"cache", "label", "prompts", "predict", "tokens", "parted_low", "parted_median", "parted_high", "same", "loops", "free", "loops_own", "loops_left", "model", "text"})
	for _, r := range rows {
		c.Write([]string{r.Cache, r.Label, strconv.Itoa(r.Prompts), strconv.Itoa(r.Predict), strconv.Itoa(r.Tokens), strconv.Itoa(r.PartedLow), strconv.Itoa(r.PartedMedian),
			strconv.Itoa(r.PartedHigh), strconv.Itoa(r.Same), strconv.Itoa(r.Loops), strconv.Itoa(r.Free), strconv.Itoa(r.LoopsOfOwn), strconv.Itoa(r.LoopsLeft), r.Model, r.Text})
	}
	c.Flush()
	return c.Error()
}

func writeGreedyMarkdown(w io.Writer, rows []GreedyRow) error {
	t := Table{Head: []string{"cache", "parts from f16 after (median)", "quartiles", "not parted when cut", "mean length", "loops", "where f16 has none", "only f16 has one"}}
	for _, r := range rows {
		t.Rows = append(t.Rows, []string{r.Label, human.Count(r.PartedMedian), human.Count(r.PartedLow) + " to " + human.Count(r.PartedHigh),
			human.Count(r.Same), human.Count(r.Tokens), human.Count(r.Loops), human.Count(r.LoopsOfOwn) + " of " + human.Count(r.Free), human.Count(r.LoopsLeft)})
	}
	return t.Write(w)
}
