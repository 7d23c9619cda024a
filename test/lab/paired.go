package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/hexkv/hexkv/internal/bootstrap"
)

// references names the row that the other rows of an experiment are compared with, position by position: the setting of a preset.
var references = map[string]struct {
	name string                    // for the head of the column
	row  func(label string) string // the label of the row that a row is compared with; empty: none
}{
	"ingredients":      only("sinks, recent, heavy"),
	"base":             only("K 3 V 2"),
	"residual":         only("hex3, 304 slots"),
	"residual-quality": only("hex4, 240 slots"),
	"selection":        only("half-life 256"),
	"degree":           only("none"),
	"corrections": {"both", func(label string) string {
		preset, _, found := strings.Cut(label, ", ")
		if !found {
			return ""
		}
		return preset + ", both"
	}},
}

func only(label string) struct {
	name string
	row  func(string) string
} {
	return struct {
		name string
		row  func(string) string
	}{label, func(string) string { return label }}
}

// windowKey is a window that a cache read.
type windowKey struct {
	Cache  string `json:"cache"`
	First  int    `json:"first"`
	Tokens int    `json:"tokens"`
}

// readRecords returns the KL divergence of each position, from the records of hexrun eval kld. Of several answers the last counts, as the
// row that is made from them is the last one.
func readRecords(path string) (map[windowKey][]float64, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errNotMeasured
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	all := map[windowKey][]float64{}
	d := json.NewDecoder(bufio.NewReader(file))
	for {
		var line struct {
			Key    windowKey `json:"key"`
			Answer struct {
				KL []float64 `json:"kl"`
			} `json:"answer"`
		}
		switch err := d.Decode(&line); {
		case err == io.EOF, errors.Is(err, io.ErrUnexpectedEOF): // a last line that was not written to its end
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all[line.Key] = line.Answer.KL
	}
}

// secondHalves returns the KL of the second half of each window that the row of an experiment is the mean of, and checks that it is.
func secondHalves(x experiment, r row, kept map[windowKey][]float64) ([][]float64, error) {
	size, start, count := x.number("-c"), x.number("--start"), x.number("--windows")
	var keys []windowKey
	for k := range kept {
		if k.Cache == r.Cache && k.Tokens == size && k.First >= start && k.First < start+size*count {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b windowKey) int { return cmp.Compare(a.First, b.First) })
	var halves [][]float64
	sum, n := 0.0, 0
	for _, k := range keys {
		half := kept[k][len(kept[k])/2:]
		halves = append(halves, half)
		for _, kl := range half {
			sum += kl
			n++
		}
	}
	if len(halves) != count || math.Abs(sum/float64(n)-r.Half) > 1e-9*math.Abs(r.Half) {
		return nil, fmt.Errorf("%s.records does not hold what the row %q of %s.json was made from; measure it again", x.name, r.Label, x.name)
	}
	return halves, nil
}

// number is the value of a flag of x.
func (x experiment) number(flag string) int {
	at := slices.Index(x.args, flag)
	n, _ := strconv.Atoi(x.args[at+1])
	return n
}

// differences returns a cell for each row: the mean difference from its reference in the second halves, with a 95 % interval. Blocks are drawn for
// both rows alike, so what is hard in the text for every cache drops out.
func (l *laboratory) differences(x experiment, rows []row) ([]string, error) {
	kept, err := readRecords(filepath.Join(l.work, x.name+".records"))
	if err != nil {
		return nil, err
	}
	byLabel := map[string]row{}
	for _, r := range rows {
		byLabel[r.Label] = r
	}
	cells := make([]string, len(rows))
	for i, r := range rows {
		ref, ok := byLabel[references[x.name].row(r.Label)]
		switch {
		case strings.HasPrefix(r.Label, "f16 ("): // the floor
			continue
		case !ok:
			return nil, fmt.Errorf("%s has no row that %q can be compared with", x.name, r.Label)
		case ref.Label == r.Label:
			cells[i] = "0"
			continue
		}
		a, err := secondHalves(x, r, kept)
		if err != nil {
			return nil, err
		}
		b, err := secondHalves(x, ref, kept)
		if err != nil {
			return nil, err
		}
		var s bootstrap.Sample
		for w := range a {
			difference := make([]float64, len(a[w]))
			for n := range difference {
				difference[n] = a[w][n] - b[w][n]
			}
			s.Add(difference)
		}
		lo, hi, _ := s.Interval() // every experiment has blocks enough
		cells[i] = fmt.Sprintf("%s (%s to %s)", signed(r.Half-ref.Half), signed(lo), signed(hi))
	}
	return cells, nil
}

func signed(x float64) string {
	if math.Abs(x) < 0.00005 {
		return "0.0000"
	}
	if x < 0 {
		return "-" + nats(-x)
	}
	return "+" + nats(x)
}
