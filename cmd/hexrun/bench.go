package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/machine"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/progress"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/report"
	"github.com/hexkv/hexkv/hexkv"
)

const benchHelp = `Like llama-bench, but all caches take turns: round one of each, round two of each, so that what slows the machine for
a while slows all of them. A test is pp (-p tokens are read) or tg (-n tokens are decoded, one at a time), behind -d tokens that are in
the cache already. The best round counts, and is compared with f16's.

Between two rounds the cache is cut back to the depth, and its last 256 tokens are read again, so that the recent tokens of a HEX
cache are refined as they were. The context of a depth is as large as its longest test needs. Tokens are random, as llama-bench's.`

func benchCommand(e *env) *cli.Command {
	list := func(category, names, env, usage, value string) cli.Flag {
		f := text(category, names, env, usage)
		f.Value = value
		return f
	}
	const about = "Tests"
	return &cli.Command{
		Name:        "bench",
		Usage:       "measure the speed of caches in turns, as llama-bench does",
		Description: benchHelp,
		Flags: append(modelFlags(),
			list(about, "n-prompt p", "", "LIST|tokens that are read, separated by commas; 0: no such test", "512"),
			list(about, "n-gen n", "", "LIST|tokens that are decoded; 0: no such test", "32"),
			list(about, "n-depth d", "", "LIST|tokens in the cache before", "0"),
			whole(about, "repetitions r", "", "N|rounds", 5, ""),
			list(about, "threads t", "THREADS", "LIST|CPU threads; 0: physical cores", "0"),
			whole(aboutModel, "batch-size b", "BATCH", "N|most tokens of one call", 2048, ""),
			whole(aboutModel, "ubatch-size ub", "UBATCH", "N|tokens computed at once", 512, ""),
			list(aboutCache, "caches", "", "LIST|what to measure: f16, q8_0/q4_0, hex4/hex3, hex:PRESET, hex:PRESET:heavy=0.1, ...",
				"f16,q8_0,q4_0,hex:balanced,hex:tiny"),
			formatFlag(report.Formats...)),
		Action: action(e, func(ctx context.Context, cmd *cli.Command) error { return bench(ctx, e, cmd) }),
	}
}

// bench measures, warns when the machine is not quiet, and prints the rows that it has also when a later test fails.
func bench(ctx context.Context, e *env, cmd *cli.Command) error {
	r, err := newBenchRun(cmd)
	if err != nil {
		return err
	}
	m, err := openModel(ctx, e, cmd)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := r.prepare(m); err != nil {
		return err
	}
	quiet := machine.Watch()
	time.Sleep(200 * time.Millisecond)
	warnBusy(e, quiet, "just before the start")

	format := cmd.String("output")
	bar := progress.New(e.stderr, isTerminal(e.stderr))
	defer bar.Clear()
	r.progress = bar.Set
	var rows []report.BenchRow
	whole := machine.Watch()
	failed := r.run(ctx, m, func(more []report.BenchRow) error {
		rows = append(rows, more...)
		if format != "jsonl" {
			return nil
		}
		bar.Clear() // as they come
		return report.WriteBench(e.stdout, format, more)
	})
	bar.Clear()
	if failed == nil {
		warnBusy(e, whole, "during the run")
	}
	if format == "jsonl" || len(rows) == 0 {
		return failed
	}
	return errors.Join(report.WriteBench(e.stdout, format, rows), failed)
}

func warnBusy(e *env, o machine.Others, when string) {
	if cores, ok := o.Cores(); ok && cores > 0.1 {
		e.note("warning: %s, other processes used %.1f cores; repeat on an idle machine before you trust a ratio", when, cores)
	}
}

// newBenchRun reads and checks the flags.
func newBenchRun(cmd *cli.Command) (*benchRun, error) {
	r := &benchRun{rounds: cmd.Int("repetitions"), batch: cmd.Int("batch-size"), ubatch: cmd.Int("ubatch-size")}
	if r.rounds < 1 || r.rounds > 1000 {
		return nil, usagef("-r %d: use 1 to 1000 rounds", r.rounds)
	}
	if r.batch < 1 || r.ubatch < 1 {
		return nil, usagef("-b %d -ub %d: use 1 or more", r.batch, r.ubatch)
	}
	r.ubatch = min(r.ubatch, r.batch) // as llama.cpp does
	var prompts, gens []int
	for _, f := range []struct {
		flag string
		most int
		to   *[]int
	}{{"n-prompt", 1 << 24, &prompts}, {"n-gen", 1 << 24, &gens}, {"n-depth", 1 << 24, &r.depths}, {"threads", 512, &r.threads}} {
		var err error
		if *f.to, err = counts(cmd, f.flag, f.most); err != nil {
			return nil, err
		}
	}
	for _, n := range prompts {
		if n > 0 {
			r.tests = append(r.tests, benchTest{prompt: n})
		}
	}
	for _, n := range gens {
		if n > 0 {
			r.tests = append(r.tests, benchTest{gen: n})
		}
	}
	if len(r.tests) == 0 {
		return nil, usagef("-p 0 -n 0 leave nothing to measure; use for example -p 512 -n 32")
	}
	path, err := modelPath(cmd)
	if err != nil {
		return nil, err
	}
	r.model = filepath.Base(path)
	for _, spec := range fields(cmd.String("caches")) {
		config, err := hexkv.ParseConfig(spec)
		if err != nil {
			return nil, err
		}
		r.caches = append(r.caches, benchCache{spec, config})
	}
	if len(r.caches) == 0 {
		return nil, usagef("--caches names no cache; use for example f16,hex:balanced")
	}
	return r, nil
}

// fields splits a list at its commas.
func fields(list string) []string {
	var all []string
	for _, s := range strings.Split(list, ",") {
		if s = strings.TrimSpace(s); s != "" {
			all = append(all, s)
		}
	}
	return all
}

// counts reads a list of whole numbers from 0 to most.
func counts(cmd *cli.Command, flag string, most int) ([]int, error) {
	var all []int
	for _, s := range fields(cmd.String(flag)) {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 || n > most {
			return nil, usagef("--%s %s: use whole numbers from 0 to %d, separated by commas", flag, cmd.String(flag), most)
		}
		all = append(all, n)
	}
	if len(all) == 0 {
		return nil, usagef("--%s is empty; use whole numbers, separated by commas", flag)
	}
	return all, nil
}

// String names a run's size for the progress bar.
func (t benchTest) String() string {
	if t.prompt > 0 {
		return fmt.Sprintf("pp%d", t.prompt)
	}
	return fmt.Sprintf("tg%d", t.gen)
}
