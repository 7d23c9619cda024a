package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hexkv/hexkv/internal/bootstrap"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// made is a laboratory whose results are made up: row n of a table has 0.01 (n + 1) nats at every position.
func made(t *testing.T) *laboratory {
	t.Helper()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(text), 0o755))
		return path
	}
	l := &laboratory{work: filepath.Join(dir, "work"), docs: filepath.Join(dir, "docs"), text: file("text.raw", "text"),
		hexrun:  file("hexrun", "#!/bin/sh\necho version 1\necho '| cache | 512 |'\n"),
		watched: file("presets.json", `[{"label": "q8_0", "bits_per_element": 8.5, "kld_mean": 0.004, "kld_mean_lo": 0.003, "kld_mean_hi": 0.005}]`),
		models:  map[string]string{"f32": file("f32.gguf", "a"), "q4_1": file("q4_1.gguf", "b"), "gemma": file("gemma.gguf", "c")}}
	must(t, os.MkdirAll(l.work, 0o777))
	for _, x := range experiments {
		grid := append([]string{"f16 (steps of 32) = floor"}, x.grid...)
		var rows []map[string]any
		var lines strings.Builder
		for n, line := range grid {
			label, cache, found := strings.Cut(line, " = ")
			if !found {
				cache = label
			}
			kl := 0.01 * float64(n+1)
			rows = append(rows, map[string]any{"cache": cache, "label": label, "bits_per_element": 3.0, "kld_second_half": kl, "kld_mean": kl, "kld_second_half_lo": kl, "kld_second_half_hi": kl,
				"items": 4, "right": 3, "margin": 1.5, "prompts": 50, "parted_median": 7, "loops": 2, "free": 4})
			if _, compared := references[x.name]; !compared {
				continue
			}
			size := x.number("-c")
			kls := make([]float64, size)
			for i := range kls {
				if kls[i] = 9; i >= size/2 { // the first half does not count
					kls[i] = kl
				}
			}
			for w := range x.number("--windows") {
				data, err := json.Marshal(map[string]any{"kind": "hexrun eval kld", "key": map[string]any{"cache": cache, "first": x.number("--start") + w*(size-1), "tokens": size},
					"answer": map[string]any{"kl": kls}})
				must(t, err)
				lines.Write(append(data, '\n'))
			}
		}
		data, err := json.Marshal(rows)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(l.work, x.name+".json"), data, 0o666))
		if lines.Len() > 0 {
			must(t, os.WriteFile(filepath.Join(l.work, x.name+".records"), []byte(lines.String()), 0o666))
		}
	}
	return l
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	return string(data)
}

func TestDocument(t *testing.T) {
	l := made(t)
	must(t, l.write())
	if len(l.missing) > 0 {
		t.Fatal(l.missing)
	}
	got := read(t, filepath.Join(l.docs, "quality.md"))
	for _, x := range experiments {
		if !strings.Contains(got, "\n"+x.name+".grid:\n") {
			t.Errorf("no table of %s", x.name)
		}
	}
	for _, want := range []string{
		"| q4_0 | 3.00 | 0 | 0.040 | 0.040 to 0.040 | 0.040 |",
		"| interval | difference from sinks, recent, heavy | KL, all |",
		"| no refinement | 3.00 | 0 | 0.020 | 0.020 to 0.020 | -0.050 (-0.050 to -0.050) | 0.020 |",
		"| sinks, recent, heavy | 3.00 | 0 | 0.070 | 0.070 to 0.070 | 0 | 0.070 |",
		"| f16 (steps of 32) | 3.00 | 0 | 0.010 | 0.010 to 0.010 |  | 0.010 |",
		"| balanced, biases left in | 3.00 | 0 | 0.070 | 0.070 to 0.070 | +0.010 (+0.010 to +0.010) | 0.070 |",
		"| hex3, 304 slots | 3.00 | 0 | 0.030 | 0.030 to 0.030 | -0.010 (-0.010 to -0.010) |", // of quality
		"| tiny | 2.8 | missed: 3.00 | 0.018 | missed: 0.050 | 125 % | 167 % | missed: 0.050 | 125 % | 167 % |",
		"| compact | 3.3 | 3.00 | 0.013 | missed: 0.060 | 150 % | 200 % |",
		"| not parted when cut |", "![SmolLM2-135M: error against length](lengths.svg)", "| cache | 512 |", "| q8_0 | 8.50 | 0.0040 | 0.0030 to 0.0050 |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the document has no %q", want)
		}
	}
	if strings.Contains(got, "not measured") {
		t.Error("results are said to be missing")
	}
	for _, plot := range []string{"pareto-presets.svg", "lengths.svg", "front.svg"} {
		if !strings.Contains(read(t, filepath.Join(l.docs, plot)), "<svg") {
			t.Error(plot)
		}
	}
}

// A document with gaps does not replace one without.
func TestMissingResults(t *testing.T) {
	l := made(t)
	must(t, l.write())
	for name, file := range map[string]string{"needle": "needle.json", "base.records": "base.records", "presets-tuned-4096": "presets-tuned-4096.json"} {
		kept := read(t, filepath.Join(l.work, file))
		must(t, os.Remove(filepath.Join(l.work, file)))
		must(t, os.WriteFile(filepath.Join(l.docs, "quality.md"), []byte("before"), 0o666))
		must(t, l.write())
		if !slices.Contains(l.missing, name) {
			t.Errorf("%s is not named: %q", name, l.missing)
		}
		if got := read(t, filepath.Join(l.docs, "quality.md")); got != "before" {
			t.Errorf("without %s the document was written", file)
		}
		if draft := read(t, filepath.Join(l.work, "quality.md")); !strings.Contains(draft, "# Quality") {
			t.Error("no draft")
		}
		must(t, os.WriteFile(filepath.Join(l.work, file), []byte(kept), 0o666))
	}
}

// Records that a row was not made from are refused.
func TestOtherRecords(t *testing.T) {
	l := made(t)
	path := filepath.Join(l.work, "degree.records")
	must(t, os.WriteFile(path, []byte(strings.ReplaceAll(read(t, path), "0.03", "0.031")), 0o666))
	if err := l.write(); err == nil || !strings.Contains(err.Error(), `degree.records does not hold what the row "degree 1" of degree.json was made from`) {
		t.Fatal(err)
	}
}

func TestGoalTable(t *testing.T) {
	held := []row{{Label: "q4_0", Half: 0.04}, {Label: "hex:tiny", BitsPerElement: 2.804, Half: 0.018}, {Label: "hex:compact", BitsPerElement: 3.306, Half: 0.0066}}
	got := goalTable(goalsAt2048[:3], held, nil)
	for _, want := range []string{
		"| tiny | 2.8 | 2.80 | 0.018 | 0.018 | 45 % | not measured | not measured | not measured | not measured |",
		"| compact | 3.3 | missed: 3.31 | 0.0065 | missed: 0.0066 | 16 % |",
		"| balanced | 3.8 | not measured | 0.0030 | not measured | not measured |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// The interval holds the mean, and widens with the noise.
func TestInterval(t *testing.T) {
	width := func(noise float64) float64 {
		var s bootstrap.Sample
		for b := range 32 {
			block := make([]float64, 64)
			for i := range block {
				block[i] = 1 + noise*math.Sin(float64(b))
			}
			s.Add(block)
		}
		lo, hi, ok := s.Interval()
		if !ok || lo > 1.01 || hi < 0.99 {
			t.Errorf("%g to %g", lo, hi)
		}
		return hi - lo
	}
	if w := width(0); w != 0 {
		t.Error(w)
	}
	if narrow, wide := width(0.1), width(0.2); math.Abs(wide-2*narrow) > 1e-9 || narrow < 0.04 || narrow > 0.06 {
		t.Error(fmt.Sprint(narrow, wide))
	}
}
