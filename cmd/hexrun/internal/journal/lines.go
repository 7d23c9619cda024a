package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/kld"
)

// line is the form on the disk. Every line begins with marker.
type line struct {
	Version int `json:"hexrun_eval_kld"`
	Key
	Result
	KL      []float64 `json:"kl"`       // of each position
	SameTop string    `json:"same_top"` // a 1 or 0 for each
	NLL     []float64 `json:"nll"`      // of each but the last, which nothing follows
}

const marker = `{"hexrun_eval_kld":1,`

// format writes one line. JSON keeps every bit of a float64.
func format(key Key, r Result) ([]byte, error) {
	l := line{Version: 1, Key: key, Result: r, KL: []float64{}, NLL: []float64{}}
	same := make([]byte, len(r.Rows))
	for i, row := range r.Rows {
		l.KL = append(l.KL, row.KL)
		if i+1 < len(r.Rows) {
			l.NLL = append(l.NLL, row.NLL)
		}
		if same[i] = '0'; row.SameTop {
			same[i] = '1'
		}
	}
	l.SameTop = string(same)
	data, err := json.Marshal(l)
	return append(data, '\n'), err
}

// Parse reads a journal; name is for errors. It returns how many bytes are whole lines: less than all when the last one was not
// written to its end.
func Parse(name string, data []byte) (results map[Key]Result, whole int, err error) {
	results = map[Key]Result{}
	for n := 1; whole < len(data); n++ {
		text, _, ended := bytes.Cut(data[whole:], []byte("\n"))
		if !bytes.HasPrefix(text, []byte(marker)) {
			if !ended && bytes.HasPrefix([]byte(marker), text) {
				return results, whole, nil
			}
			if n == 1 {
				return nil, 0, fmt.Errorf("%s is no journal of hexrun eval kld; name another file with --resume", name)
			}
			return nil, 0, fmt.Errorf("line %d of the journal %s does not belong there; delete the line, or name another file with --resume", n, name)
		}
		if !ended { // also when it happens to be valid: a number may have lost its last digits
			return results, whole, nil
		}
		key, r, err := parse(text)
		if err != nil {
			return nil, 0, fmt.Errorf("line %d of the journal %s is damaged (%w); delete the line, or name another file with --resume", n, name, err)
		}
		results[key] = r
		whole += len(text) + 1
	}
	return results, whole, nil
}

// parse reads one line.
func parse(text []byte) (Key, Result, error) {
	var l line
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("it ends early")
		}
		return Key{}, Result{}, err
	}
	if _, err := d.Token(); err != io.EOF {
		return Key{}, Result{}, errors.New("more than one object")
	}
	n := l.Tokens
	if n < 1 || len(l.KL) != n || len(l.SameTop) != n || len(l.NLL) != n-1 {
		return Key{}, Result{}, fmt.Errorf("%d, %d and %d values for %d tokens", len(l.KL), len(l.SameTop), len(l.NLL), n)
	}
	rows := make([]kld.Row, n)
	for i := range rows {
		rows[i] = kld.Row{KL: l.KL[i], SameTop: l.SameTop[i] == '1', NLL: math.NaN()}
		if l.SameTop[i] != '0' && l.SameTop[i] != '1' {
			return Key{}, Result{}, fmt.Errorf("same_top has %q", l.SameTop[i])
		}
		if i < n-1 {
			rows[i].NLL = l.NLL[i]
		}
	}
	l.Result.Rows = rows
	return l.Key, l.Result, nil
}
