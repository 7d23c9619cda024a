package main

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
)

//go:embed quality.md.tmpl
var document string

// row has the keys of all three kinds of hexrun eval that the tables show.
type row struct {
	Cache          string   `json:"cache"`
	Label          string   `json:"label"`
	KVBytes        float64  `json:"kv_bytes"`
	BitsPerElement float64  `json:"bits_per_element"`
	NTokens        int      `json:"n_tokens"`
	RefinedCells   int      `json:"refined_cells"`
	KLDMean        float64  `json:"kld_mean"`
	KLDMeanLo      *float64 `json:"kld_mean_lo"`
	KLDMeanHi      *float64 `json:"kld_mean_hi"`
	Half           float64  `json:"kld_second_half"`
	HalfLo         *float64 `json:"kld_second_half_lo"`
	HalfHi         *float64 `json:"kld_second_half_hi"`
	SameTop1       float64  `json:"same_top1"`
	PPL            float64  `json:"ppl"`

	Items        int      `json:"items"`
	Right        int      `json:"right"`
	Margin       float64  `json:"margin"`
	MarginLo     *float64 `json:"margin_lo"`
	MarginHi     *float64 `json:"margin_hi"`
	Difference   float64  `json:"difference"`
	DifferenceLo *float64 `json:"difference_lo"`
	DifferenceHi *float64 `json:"difference_hi"`

	PartedLow    int `json:"parted_low"`
	PartedMedian int `json:"parted_median"`
	PartedHigh   int `json:"parted_high"`
	Same         int `json:"same"`
	Tokens       int `json:"tokens"`
	Loops        int `json:"loops"`
	Free         int `json:"free"`
	LoopsOfOwn   int `json:"loops_own"`
	LoopsLeft    int `json:"loops_left"`
}

var errNotMeasured = errors.New("not measured")

func (l *laboratory) rows(name string) ([]row, error) {
	return readRows(filepath.Join(l.work, name+".json"))
}

func readRows(path string) ([]row, error) {
	data, err := os.ReadFile(path)
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
		l.lacks(name)
		return "*" + name + ": not measured yet; `make lab LAB=" + name + "` does it.*", nil
	}
	if err != nil {
		return "", err
	}
	var differences []string
	if _, compared := references[name]; compared {
		if differences, err = l.differences(x, rows); errors.Is(err, errNotMeasured) {
			l.lacks(name + ".records")
		} else if err != nil {
			return "", err
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "<details><summary>`%s`, model %s</summary>\n\n    hexrun %s\n\n%s.grid:\n\n    %s\n\n</details>\n\n", x.short(), modelNames[x.model],
		strings.Join(x.flags(filepath.Base(l.models[x.model]), filepath.Base(l.text), x.name+".grid", ""), " "), x.name, strings.Join(x.grid, "\n    "))
	switch x.eval {
	case "kld":
		writeKLD(&b, rows, references[name].name, differences)
	case "recall":
		short := func(x float64) string { return fmt.Sprintf("%.2f", x) }
		b.WriteString("| cache | bits | right | margin, nats | interval | difference from f16 | interval |\n|---|--:|--:|--:|--:|--:|--:|\n")
		for _, r := range rows {
			fmt.Fprintf(&b, "| %s | %.2f | %d of %d | %.2f | %s | %.2f | %s |\n", r.Label, r.BitsPerElement, r.Right, r.Items, r.Margin,
				interval(short, r.MarginLo, r.MarginHi), r.Difference, interval(short, r.DifferenceLo, r.DifferenceHi))
		}
	case "greedy":
		b.WriteString("| cache | parts from f16 after (median) | quartiles | not parted when cut | mean length | loops | where f16 has none | only f16 has one |\n|---|--:|--:|--:|--:|--:|--:|--:|\n")
		for _, r := range rows {
			fmt.Fprintf(&b, "| %s | %d | %d to %d | %d | %d | %d | %d of %d | %d |\n", r.Label, r.PartedMedian, r.PartedLow, r.PartedHigh, r.Same, r.Tokens,
				r.Loops, r.LoopsOfOwn, r.Free, r.LoopsLeft)
		}
	}
	return strings.TrimRight(b.String(), "\n"), nil
}

// writeKLD writes a table, with a column of differences where there are some.
func writeKLD(b *strings.Builder, rows []row, reference string, differences []string) {
	head, line := "", ""
	if differences != nil {
		head, line = " difference from "+reference+" |", "--:|"
	}
	fmt.Fprintf(b, "| cache | bits | refined | KL, second half | interval |%s KL, all | same top-1 | PPL |\n|---|--:|--:|--:|--:|%s--:|--:|--:|\n", head, line)
	for i, r := range rows {
		cell := ""
		if differences != nil {
			cell = " " + differences[i] + " |"
		}
		fmt.Fprintf(b, "| %s | %.2f | %d | %s | %s |%s %s | %.1f %% | %.2f |\n", r.Label, r.BitsPerElement, r.RefinedCells,
			nats(r.Half), interval(nats, r.HalfLo, r.HalfHi), cell, nats(r.KLDMean), 100*r.SameTop1, r.PPL)
	}
}

// watchedTable shows what TestPresetQuality compares with.
func (l *laboratory) watchedTable() (string, error) {
	rows, err := readRows(l.watched)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("| cache | bits | KL, all | interval |\n|---|--:|--:|--:|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %.2f | %s | %s |\n", r.Label, r.BitsPerElement, nats(r.KLDMean), interval(nats, r.KLDMeanLo, r.KLDMeanHi))
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

// origin says what measured and what was read, for those who compare.
func (l *laboratory) origin() (string, error) {
	version, err := exec.Command(l.hexrun, "version").Output()
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(string(version)), "\n")
	for _, path := range []string{l.models["f32"], l.models["q4_1"], l.models["gemma"], l.text} {
		hash, err := hashOf(path)
		if err != nil {
			return "", err
		}
		lines = append(lines, "SHA-256    "+hash+"  "+filepath.Base(path))
	}
	return "    " + strings.Join(lines, "\n    "), nil
}

func hashOf(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	hash := sha256.New()
	_, err = io.Copy(hash, file)
	return fmt.Sprintf("%x", hash.Sum(nil)), err
}

// lacks remembers what has no results: the document is not for readers then.
func (l *laboratory) lacks(what string) {
	if !slices.Contains(l.missing, what) {
		l.missing = append(l.missing, what)
	}
}

// goal is what the project set out to reach with a preset.
type goal struct {
	preset   string
	bits, kl float64
}

var (
	goalsAt2048 = []goal{{"tiny", 2.8, 0.018}, {"compact", 3.3, 0.0065}, {"balanced", 3.8, 0.0030}, {"quality", 4.3, 0.0012}}
	goalsAt4096 = []goal{{"compact", 3.3, 0.013}, {"balanced", 3.8, 0.006}}
)

// goals compares the presets with goals, in windows of 2,048 or 4,096 tokens.
func (l *laboratory) goals(tokens int) (string, error) {
	goals, names := goalsAt2048, [2]string{"presets", "presets-tuned"}
	if tokens == 4096 {
		goals, names = goalsAt4096, [2]string{"presets-4096", "presets-tuned-4096"}
	}
	var rows [2][]row
	for i, name := range names {
		var err error
		if rows[i], err = l.rows(name); errors.Is(err, errNotMeasured) {
			l.lacks(name)
		} else if err != nil {
			return "", err
		}
		for _, cache := range []string{"q4_0", "q5_0"} {
			if rowOf(rows[i], cache) == nil {
				l.lacks(cache + " of " + name)
			}
		}
		for _, g := range goals {
			if rowOf(rows[i], "hex:"+g.preset) == nil {
				l.lacks("hex:" + g.preset + " of " + name)
			}
		}
	}
	return goalTable(goals, rows[0], rows[1]), nil
}

func rowOf(rows []row, label string) *row {
	for i := range rows {
		if rows[i].Label == label {
			return &rows[i]
		}
	}
	return nil
}

// goalTable judges figures as they are printed. What is missing has no verdict, and says so.
func goalTable(goals []goal, held, chosen []row) string {
	const notMeasured = "not measured"
	var b strings.Builder
	b.WriteString("| preset | bits at most | bits | KL at most | KL, held-out text | of q4_0's | of q5_0's | KL, tuned text | of q4_0's | of q5_0's |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	verdict := func(met bool, figure string) string {
		if met {
			return figure
		}
		return "missed: " + figure
	}
	for _, g := range goals {
		bits, figures := notMeasured, ""
		for _, rows := range [][]row{held, chosen} {
			r, kl := rowOf(rows, "hex:"+g.preset), notMeasured
			if r != nil {
				kl = verdict(r.Half <= g.kl, nats(r.Half))
				if cell := verdict(math.Round(100*r.BitsPerElement) <= math.Round(100*g.bits), fmt.Sprintf("%.2f", r.BitsPerElement)); bits == notMeasured || strings.HasPrefix(cell, "missed") {
					bits = cell
				}
			}
			figures += " " + kl + " |"
			for _, stock := range []string{"q4_0", "q5_0"} {
				cell := notMeasured
				if s := rowOf(rows, stock); r != nil && s != nil && s.Half > 0 {
					cell = fmt.Sprintf("%.0f %%", 100*r.Half/s.Half)
				}
				figures += " " + cell + " |"
			}
		}
		fmt.Fprintf(&b, "| %s | %.1f | %s | %s |%s\n", g.preset, g.bits, bits, nats(g.kl), figures)
	}
	return strings.TrimRight(b.String(), "\n")
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
	return strings.Replace(strings.TrimSpace(string(out)[at:]), "\n* ", "\n\\* ", 1), nil
}

// write makes quality.md and its plots in the work folder, and copies them to docs if nothing is missing.
func (l *laboratory) write() error {
	l.missing, l.plots = nil, nil
	t, err := template.New("quality.md").Funcs(template.FuncMap{"table": l.table, "pareto": l.pareto, "lengths": l.lengths, "front": l.front,
		"plan": l.plan, "origin": l.origin, "goals": l.goals, "watched": l.watchedTable}).Parse(document)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, nil); err != nil {
		return err
	}
	draft := filepath.Join(l.work, "quality.md")
	if err := os.WriteFile(draft, out.Bytes(), 0o666); err != nil {
		return err
	}
	if len(l.missing) > 0 {
		fmt.Fprintf(os.Stderr, "lab: no results of %s; the document is in %s, and %s is left as it was\n",
			strings.Join(l.missing, ", "), draft, filepath.Join(l.docs, "quality.md"))
		return nil
	}
	if err := os.MkdirAll(l.docs, 0o777); err != nil {
		return err
	}
	for _, name := range append(l.plots, "quality.md") {
		data, err := os.ReadFile(filepath.Join(l.work, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(l.docs, name), data, 0o666); err != nil {
			return err
		}
	}
	return nil
}
