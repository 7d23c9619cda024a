package report

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/human"
	"github.com/hexkv/hexkv/internal/bootstrap"
)

// RecallRow is what hexrun eval recall measured for one cache. Ends of intervals are null where there are too few questions.
type RecallRow struct {
	Cache          string   `json:"cache"` // specification; "floor" for f16 in other steps
	Label          string   `json:"label"`
	Items          int      `json:"items"`
	Length         int      `json:"length"` // tokens of the first question
	BitsPerElement float64  `json:"bits_per_element"`
	Right          int      `json:"right"`  // questions whose right answer is likelier
	Margin         float64  `json:"margin"` // log-likelihood of the right answer less that of the wrong one, nats, mean
	MarginLo       *float64 `json:"margin_lo"`
	MarginHi       *float64 `json:"margin_hi"`
	Difference     float64  `json:"difference"` // from the margin of f16, mean
	DifferenceLo   *float64 `json:"difference_lo"`
	DifferenceHi   *float64 `json:"difference_hi"`
	Model          string   `json:"model"` // name of its file
	Text           string   `json:"text"`  // kind of the questions, or the name of their file
}

// MeanOfItems returns the mean of independent values and its 95 % interval.
func MeanOfItems(values []float64) (mean float64, lo, hi *float64) {
	var s bootstrap.Sample
	for _, v := range values {
		mean += v / float64(len(values))
		s.Add([]float64{v}) // a block of its own
	}
	if l, h, ok := s.Interval(); ok {
		lo, hi = &l, &h
	}
	return mean, lo, hi
}

// WriteRecall prints rows in one of [Formats].
func WriteRecall(w io.Writer, format string, rows []RecallRow) error {
	return encode(w, format, rows, writeRecallMarkdown, writeRecallCSV)
}

func writeRecallCSV(w io.Writer, rows []RecallRow) error {
	c := csv.NewWriter(w)
	c.Write([]string{"cache", "label", "items", "length", "bits_per_element", "right", "margin", "margin_lo", "margin_hi", "difference", "difference_lo", "difference_hi", "model", "text"})
	for _, r := range rows {
		c.Write([]string{r.Cache, r.Label, strconv.Itoa(r.Items), strconv.Itoa(r.Length), real(r.BitsPerElement), strconv.Itoa(r.Right),
			real(r.Margin), end(r.MarginLo), end(r.MarginHi), real(r.Difference), end(r.DifferenceLo), end(r.DifferenceHi), r.Model, r.Text})
	}
	c.Flush()
	return c.Error()
}

func writeRecallMarkdown(w io.Writer, rows []RecallRow) error {
	t := Table{Head: []string{"cache", "bits", "right", "margin", "difference from f16"}}
	for _, r := range rows {
		t.Rows = append(t.Rows, []string{r.Label, fmt.Sprintf("%.2f", r.BitsPerElement), fmt.Sprintf("%s of %s", human.Count(r.Right), human.Count(r.Items)),
			between(nats, r.Margin, r.MarginLo, r.MarginHi), between(nats, r.Difference, r.DifferenceLo, r.DifferenceHi)})
	}
	return t.Write(w)
}

func nats(x float64) string { return fmt.Sprintf("%.2f", x) }
