package main

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
		return "*" + name + ": not measured yet; `make lab LAB=" + name + "` does it.*", nil
	}
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "<details><summary>`%s`, model %s</summary>\n\n    hexrun %s\n\n%s.grid:\n\n    %s\n\n</details>\n\n", x.short(), modelNames[x.model],
		strings.Join(x.flags(filepath.Base(l.models[x.model]), filepath.Base(l.text), x.name+".grid", ""), " "), x.name, strings.Join(x.grid, "\n    "))
	switch x.eval {
	case "kld":
		writeKLD(&b, rows)
	case "recall":
		short := func(x float64) string { return fmt.Sprintf("%.2f", x) }
		b.WriteString("| cache | bits | right | margin, nats | interval | difference from f16 | interval |\n|---|--:|--:|--:|--:|--:|--:|\n")
		for _, r := range rows {
			fmt.Fprintf(&b, "| %s | %.2f | %d of %d | %.2f | %s | %.2f | %s |\n", r.Label, r.BitsPerElement, r.Right, r.Items, r.Margin,
				interval(short, r.MarginLo, r.MarginHi), r.Difference, interval(short, r.DifferenceLo, r.DifferenceHi))
		}
	case "greedy":
		b.WriteString("| cache | parts from f16 after (median) | quartiles | never parts | mean length | loops | where f16 has none | only f16 has one |\n|---|--:|--:|--:|--:|--:|--:|--:|\n")
		for _, r := range rows {
			fmt.Fprintf(&b, "| %s | %d | %d to %d | %d | %d | %d | %d of %d | %d |\n", r.Label, r.PartedMedian, r.PartedLow, r.PartedHigh, r.Same, r.Tokens,
				r.Loops, r.LoopsOfOwn, r.Free, r.LoopsLeft)
		}
	}
	return strings.TrimRight(b.String(), "\n"), nil
}

func writeKLD(b *strings.Builder, rows []row) {
	b.WriteString("| cache | bits | refined | KL, second half | interval | KL, all | same top-1 | PPL |\n|---|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, r := range rows {
		fmt.Fprintf(b, "| %s | %.2f | %d | %s | %s | %s | %.1f %% | %.2f |\n", r.Label, r.BitsPerElement, r.RefinedCells,
			nats(r.Half), interval(nats, r.HalfLo, r.HalfHi), nats(r.KLDMean), 100*r.SameTop1, r.PPL)
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

// goals compares the presets with what the project set out to reach.
func (l *laboratory) goals() (string, error) {
	held, err := l.rows("presets")
	if err == nil {
		var chosen []row
		if chosen, err = l.rows("presets-tuned"); err == nil {
			return goalTable(held, chosen), nil
		}
	}
	if errors.Is(err, errNotMeasured) {
		return "*not measured yet*", nil
	}
	return "", err
}

func goalTable(held, chosen []row) string {
	var b strings.Builder
	b.WriteString("| preset | bits at most | bits | KL at most | KL, held-out text | KL, tuned text |\n|---|--:|--:|--:|--:|--:|\n")
	for _, g := range []struct {
		preset   string
		bits, kl float64
	}{{"tiny", 2.8, 0.018}, {"compact", 3.3, 0.0065}, {"balanced", 3.8, 0.0030}, {"quality", 4.3, 0.0012}} {
		bits := 0.0
		verdict := func(rows []row) string {
			for _, r := range rows {
				if r.Label == "hex:"+g.preset && r.Half <= g.kl {
					bits = r.BitsPerElement
					return nats(r.Half)
				} else if r.Label == "hex:"+g.preset {
					bits = r.BitsPerElement
					return "missed: " + nats(r.Half)
				}
			}
			return ""
		}
		h, c := verdict(held), verdict(chosen)
		fmt.Fprintf(&b, "| %s | %.1f | %.2f | %s | %s | %s |\n", g.preset, g.bits, bits, nats(g.kl), h, c)
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

// write makes quality.md and its plots.
func (l *laboratory) write() error {
	t, err := template.New("quality.md").Funcs(template.FuncMap{"table": l.table, "pareto": l.pareto, "lengths": l.lengths, "front": l.front,
		"plan": l.plan, "origin": l.origin, "goals": l.goals, "watched": l.watchedTable}).Parse(document)
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
