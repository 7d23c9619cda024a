package kld

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/records"
)

// Window says what was measured: one cache that read one window of a text.
type Window struct {
	records.Origin
	Text   string `json:"text"`   // SHA-256
	First  int    `json:"first"`  // token of the text where the window begins
	Tokens int    `json:"tokens"` // of the window
	Step   int    `json:"step"`
	Cache  string `json:"cache"` // specification
}

// Result is what one window gave.
type Result struct {
	NCtx           int     `json:"n_ctx"`
	KVBytes        uint64  `json:"kv_bytes"`
	BitsPerElement float64 `json:"bits_per_element"`
	RefinedCells   float64 `json:"refined_cells"` // mean over layers and KV heads
	Rows           []Row   `json:"-"`             // in columns, see below
}

// columns is the form of a Result in JSON, which keeps every bit of a float64.
type columns struct {
	plain
	KL      []float64 `json:"kl"`       // of each position
	SameTop string    `json:"same_top"` // a 1 or 0 for each
	NLL     []float64 `json:"nll"`      // of each but the last, which nothing follows
}

type plain Result // without methods

// MarshalJSON writes the rows as columns.
func (r Result) MarshalJSON() ([]byte, error) {
	c := columns{plain: plain(r), KL: []float64{}, NLL: []float64{}}
	same := make([]byte, len(r.Rows))
	for i, row := range r.Rows {
		c.KL = append(c.KL, row.KL)
		if i+1 < len(r.Rows) {
			c.NLL = append(c.NLL, row.NLL)
		}
		if same[i] = '0'; row.SameTop {
			same[i] = '1'
		}
	}
	c.SameTop = string(same)
	return json.Marshal(c)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (r *Result) UnmarshalJSON(data []byte) error {
	var c columns
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return err
	}
	n := len(c.KL)
	if n < 1 || len(c.SameTop) != n || len(c.NLL) != n-1 {
		return fmt.Errorf("%d, %d and %d values", n, len(c.SameTop), len(c.NLL))
	}
	*r = Result(c.plain)
	r.Rows = make([]Row, n)
	for i := range r.Rows {
		r.Rows[i] = Row{KL: c.KL[i], SameTop: c.SameTop[i] == '1', NLL: math.NaN()}
		if c.SameTop[i] != '0' && c.SameTop[i] != '1' {
			return fmt.Errorf("same_top has %q", c.SameTop[i])
		}
		if i < n-1 {
			r.Rows[i].NLL = c.NLL[i]
		}
	}
	return nil
}

// Check says whether the result can be that of a window.
func (r Result) Check(w Window) error {
	if len(r.Rows) != w.Tokens {
		return fmt.Errorf("%d values for %d tokens", len(r.Rows), w.Tokens)
	}
	return nil
}
