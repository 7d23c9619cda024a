package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
)

//go:embed quality.md.tmpl
var document string

// row has the keys of all three kinds of hexrun eval that the tables show.
type row struct {
	Label          string   `json:"label"`
	KVBytes        float64  `json:"kv_bytes"`
	BitsPerElement float64  `json:"bits_per_element"`
	NTokens        int      `json:"n_tokens"`
	RefinedCells   int      `json:"refined_cells"`
	KLDMean        float64  `json:"kld_mean"`
	Half           float64  `json:"kld_second_half"`
	HalfLo         *float64 `json:"kld_second_half_lo"`
	HalfHi         *float64 `json:"kld_second_half_hi"`
	SameTop1       float64  `json:"same_top1"`
	PPL            float64  `json:"ppl"`

	Items        int      `json:"items"`
	Right        int      `json:"right"`
	Margin       float64  `json:"margin"`
	Difference   float64  `json:"difference"`
	DifferenceLo *float64 `json:"difference_lo"`
	DifferenceHi *float64 `json:"difference_hi"`

	PartedLow    int `json:"parted_low"`
	PartedMedian int `json:"parted_median"`
	PartedHigh   int `json:"parted_high"`
	Same         int `json:"same"`
	Loops        int `json:"loops"`
	LoopsOfOwn   int `json:"loops_own"`
	LoopsLeft    int `json:"loops_left"`
}

var errNotMeasured = errors.New("not measured")

func (l *laboratory) rows(name string) ([]row, error) {
	data, err := os.ReadFile(filepath.Join(l.work, name+".json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, errNotMeasured
	}
	if err != nil {
		return nil, err
	}
	var rows []row
	return rows, json.Unmarshal(data, &rows)
}

func find(name string) (experiment, error) {
	for _, x := range experiments {
		if x.name == name {
			return x, nil
		}
	}
	return experiment{}, fmt.Errorf("there is no experiment %q", name)
}

// table writes the rows of an experiment, and above it the command.
func (l *laboratory) table(name string) (string, error) {
	x, err := find(name)
	if err != nil {
		return "", err
	}
	rows, err := l.rows(name)
	if errors.Is(err, errNotMeasured) {
		return "*" + name + ": not measured yet; `make lab LAB=" + name + "` does it.*", nil
	}
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "`%s`, model %s\n\n", x.command(), modelNames[x.model])
	switch x.eval {
	case "kld":
		b.WriteString("| cache | bits | refined | KL, second half | interval | KL, all | same top-1 | PPL |\n|---|--:|--:|--:|--:|--:|--:|--:|\n")
		for _, r := range rows {
			fmt.Fprintf(&b, "| %s | %.2f | %d | %s | %s | %s | %.1f %% | %.2f |\n", r.Label, r.BitsPerElement, r.RefinedCells,
				nats(r.Half), interval(nats, r.HalfLo, r.HalfHi), nats(r.KLDMean), 100*r.SameTop1, r.PPL)
		}
	case "recall":
		b.WriteString("| cache | bits | right | margin, nats | difference from f16 | interval |\n|---|--:|--:|--:|--:|--:|\n")
		for _, r := range rows {
			fmt.Fprintf(&b, "| %s | %.2f | %d of %d | %.2f | %.2f | %s |\n", r.Label, r.BitsPerElement, r.Right, r.Items, r.Margin, r.Difference,
				interval(func(x float64) string { return fmt.Sprintf("%.2f", x) }, r.DifferenceLo, r.DifferenceHi))
		}
	case "greedy":
		b.WriteString("| cache | parts from f16 after (median) | quartiles | never parts | loops | f16 has none | only f16 has one |\n|---|--:|--:|--:|--:|--:|--:|\n")
		for _, r := range rows {
			fmt.Fprintf(&b, "| %s | %d | %d to %d | %d | %d | %d | %d |\n", r.Label, r.PartedMedian, r.PartedLow, r.PartedHigh, r.Same, r.Loops, r.LoopsOfOwn, r.LoopsLeft)
		}
	}
	return strings.TrimRight(b.String(), "\n"), nil
}

var modelNames = map[string]string{
	"f32": "SmolLM2-135M-Instruct with F32 weights", "q4_1": "SmolLM2-135M-Instruct, Q4_1", "gemma": "Gemma 3 270M, Q4_K_M",
}

func nats(x float64) string {
	if x >= 0.01 || x == 0 {
		return fmt.Sprintf("%.3f", x)
	}
	return fmt.Sprintf("%.4f", x)
}

func interval(write func(float64) string, lo, hi *float64) string {
	if lo == nil || hi == nil {
		return ""
	}
	return write(*lo) + " to " + write(*hi)
}

// plan returns hexrun info's table of bytes.
func (l *laboratory) plan() (string, error) {
	out, err := exec.Command(l.hexrun, "info", "-m", l.models["q4_1"]).Output()
	if err != nil {
		return "", err
	}
	at := strings.Index(string(out), "| cache")
	if at < 0 {
		return "", errors.New("hexrun info printed no table")
	}
	return strings.TrimSpace(string(out)[at:]), nil
}

// write makes quality.md and its plots.
func (l *laboratory) write() error {
	t, err := template.New("quality.md").Funcs(template.FuncMap{"table": l.table, "pareto": l.pareto, "lengths": l.lengths, "plan": l.plan}).Parse(document)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(l.docs, 0o777); err != nil {
		return err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, nil); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.docs, "quality.md"), out.Bytes(), 0o666)
}
