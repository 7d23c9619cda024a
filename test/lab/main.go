// The laboratory: measures every table and plot of docs/quality.md. See test/lab/run.sh.
//
// What is measured is kept in the work folder, so a run that was interrupted goes on, and -report writes the document again from
// what there is: in the work folder while an experiment has no results.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	var lab laboratory
	models := map[string]*string{}
	flag.StringVar(&lab.hexrun, "hexrun", "", "the hexrun binary")
	flag.StringVar(&lab.text, "text", "", "WikiText-2, wiki.test.raw")
	flag.StringVar(&lab.ruler, "ruler", "", "folder of RULER's niah_multikey_3_4096.jsonl")
	flag.StringVar(&lab.watched, "watched", "", "rows that make test compares with")
	flag.StringVar(&lab.work, "work", "", "folder of results")
	flag.StringVar(&lab.docs, "docs", "", "folder that quality.md and its plots are written to when nothing is missing")
	flag.StringVar(&lab.threads, "threads", "0", "threads of hexrun, 0: as many as it takes by itself")
	only := flag.String("only", "", "names of experiments, separated by commas; empty: all")
	flag.BoolVar(&lab.keep, "keep", false, "do not measure what has results, whatever build they are from")
	report := flag.Bool("report", false, "measure nothing, write the document from what there is")
	for _, m := range []string{"f32", "q4_1", "gemma"} {
		models[m] = flag.String(m, "", "the model file "+m)
	}
	flag.Parse()
	lab.models = map[string]string{}
	for name, path := range models {
		lab.models[name] = *path
	}
	if err := lab.run(*only, *report); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

type laboratory struct {
	hexrun, text, ruler, watched, work, docs, threads string
	models                                            map[string]string
	keep                                              bool

	missing, plots []string // of the document: what has no results, files in the work folder
}

func (l *laboratory) run(only string, report bool) error {
	for _, name := range strings.FieldsFunc(only, func(r rune) bool { return r == ',' }) {
		if !slices.ContainsFunc(experiments, func(x experiment) bool { return x.name == name }) {
			return fmt.Errorf("there is no experiment %q", name)
		}
	}
	if err := os.MkdirAll(l.work, 0o777); err != nil {
		return err
	}
	for _, x := range experiments {
		if report || only != "" && !slices.Contains(strings.Split(only, ","), x.name) {
			continue
		}
		if _, err := l.rows(x.name); l.keep && err == nil {
			continue
		}
		if err := l.measure(x); err != nil {
			return fmt.Errorf("%s: %w", x.name, err)
		}
	}
	return l.write()
}

// measure runs one experiment; its rows are in NAME.json of the work folder.
func (l *laboratory) measure(x experiment) error {
	base := filepath.Join(l.work, x.name)
	if err := os.WriteFile(base+".grid", []byte(strings.Join(x.grid, "\n")+"\n"), 0o666); err != nil {
		return err
	}
	args := append(x.flags(l.models[x.model], l.text, base+".grid", l.ruler), "-t", l.threads, "--resume", base+".records", "-o", "json")
	fmt.Fprintln(os.Stderr, "==", x.name, "\n$ hexrun", strings.Join(args, " "))
	cmd := exec.Command(l.hexrun, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return err
	}
	return os.WriteFile(base+".json", out.Bytes(), 0o666)
}
