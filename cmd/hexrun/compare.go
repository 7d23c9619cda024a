package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/corpus"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/human"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/progress"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/report"
	"github.com/hexkv/hexkv/hexkv"
)

const compareHelp = `Each cache is measured in a process of its own, in two passes over the same text.

Speed: the text but its last 32 tokens is prefilled (-b, -ub), then 32 tokens are decoded one at a time. Bytes are those
that this session allocated, and the peak resident size is read when it has done so.

Quality: the cache and a stock f16 cache beside it read the text in steps of --step tokens, and every prediction is
compared: KL divergence in nats, share of positions with the same likeliest token, perplexity. hex:off is f16 to the last
bit. Everything else also shows the rounding of the model itself: with 4-bit weights on a CPU, two f16 caches whose steps
differ (--step 64 and 32) are about 0.004 apart.`

func compareCommand(e *env) *cli.Command {
	file := text(aboutPrompt, "file f", "", "FILE|the text; without it a part of "+corpus.Name+", long enough for 8192 tokens")
	caches := text(aboutCache, "caches", "", "LIST|what to compare, separated by commas: f16, q8_0/q4_0, hex4/hex3, hex:PRESET, hex:PRESET:heavy=0.1, ...")
	caches.Value = "f16,q8_0,q4_0,hex:balanced,hex:tiny"
	flags := append(modelFlags(), contextFlags(2048)...)
	return &cli.Command{
		Name:        "compare",
		Usage:       "measure caches side by side: bytes, speed, and quality against f16",
		Description: compareHelp,
		Flags: append(flags, file, caches,
			whole(aboutCache, "step", "", "N|tokens computed at once in the quality pass, so that compression acts within the text", 64, ""),
			formatFlag(report.Formats...)),
		Action: action(e, func(ctx context.Context, cmd *cli.Command) error { return compare(ctx, e, cmd) }),
	}
}

// compare measures every cache and prints the rows that it has, also when a later one fails.
func compare(ctx context.Context, e *env, cmd *cli.Command) error {
	jobs, what, err := compareJobs(e, cmd)
	if err != nil {
		return err
	}
	format := cmd.String("output")
	bar := progress.New(e.stderr, isTerminal(e.stderr))
	defer bar.Clear()
	var rows []report.Row
	var failed error
	for i, job := range jobs {
		row, err := measureInProcess(ctx, e, job, func(ev event) {
			if ev.Note != "" && i == 0 {
				bar.Clear()
				e.note("note: %s", ev.Note)
			}
			bar.Set((float64(i)+ev.Done)/float64(len(jobs)), job.Cache+"  "+ev.Step)
		})
		if err != nil {
			failed = err
			break
		}
		rows = append(rows, row)
		if format == "jsonl" { // as they come
			bar.Clear()
			if err := report.Write(e.stdout, format, rows[i:]); err != nil {
				return err
			}
		}
	}
	bar.Clear()
	if format == "jsonl" || len(rows) == 0 {
		return failed
	}
	if format == "md" {
		fmt.Fprintf(e.stdout, "%s, %s tokens of %s, KL divergence from f16 in nats (steps of %d tokens)\n\n",
			filepath.Base(jobs[0].Model), human.Count(rows[0].NTokens), what, jobs[0].Step)
	}
	return errors.Join(report.Write(e.stdout, format, rows), failed)
}

// compareJobs turns the flags into one job per cache, all checked; what names the text.
func compareJobs(e *env, cmd *cli.Command) (jobs []job, what string, err error) {
	opts, err := sessionOptions(cmd)
	if err != nil {
		return nil, "", err
	}
	j := job{
		Text: corpus.Text, Tokens: opts.ContextSize, Batch: opts.BatchSize, UBatch: opts.UBatchSize, Threads: opts.Threads,
		Step: cmd.Int("step"), Verbose: cmd.Bool("verbose"), NoMmap: cmd.Bool("no-mmap"),
	}
	if j.Step < 1 || j.Step > 4096 {
		return nil, "", usagef("--step %d: use 1 to 4096 tokens", j.Step)
	}
	if j.Tokens < 0 {
		return nil, "", usagef("-c %d: use 1 or more tokens, or 0 for as many as the model was trained with", j.Tokens)
	}
	if j.Model, err = modelPath(cmd); err != nil {
		return nil, "", err
	}
	if j.GPULayers, err = gpuLayers(cmd); err != nil {
		return nil, "", err
	}
	what = corpus.Name
	if path := cmd.String("file"); path != "" {
		what = filepath.Base(path)
		if j.Text, err = readText(e, path); err != nil {
			return nil, "", err
		}
	}
	for _, spec := range strings.Split(cmd.String("caches"), ",") {
		if spec = strings.TrimSpace(spec); spec == "" {
			continue
		}
		if _, err := hexkv.ParseConfig(spec); err != nil {
			return nil, "", err
		}
		j.Cache = spec
		jobs = append(jobs, j)
	}
	if len(jobs) == 0 {
		return nil, "", usagef("--caches names no cache; use for example f16,hex:balanced")
	}
	return jobs, what, nil
}

// measureInProcess runs one job as a process of this program, so that its peak resident size is its own.
func measureInProcess(ctx context.Context, e *env, j job, watch func(event)) (report.Row, error) {
	self, err := os.Executable()
	if err != nil {
		return report.Row{}, fmt.Errorf("this program's own file cannot be found (%w); run it by its full path", err)
	}
	in, err := json.Marshal(j)
	if err != nil {
		return report.Row{}, err
	}
	child := exec.CommandContext(ctx, self, measureName)
	child.Stdin = strings.NewReader(string(in))
	child.Stderr = e.stderr
	child.Cancel = func() error { return child.Process.Signal(os.Interrupt) }
	child.WaitDelay = 10 * time.Second
	out, err := child.StdoutPipe()
	if err != nil {
		return report.Row{}, err
	}
	if err := child.Start(); err != nil {
		return report.Row{}, fmt.Errorf("a process for %s cannot be started (%w); free some memory and try again", j.Cache, err)
	}
	last, readErr := readEvents(out, watch)
	err = child.Wait()
	switch {
	case ctx.Err() != nil:
		return report.Row{}, ctx.Err()
	case last.Error != nil:
		return report.Row{}, last.Error.restore(j.Cache)
	case last.Row != nil && err == nil:
		return *last.Row, nil
	case err == nil:
		err = readErr
	}
	return report.Row{}, fmt.Errorf("the process that measured %s ended without a result (%v); perhaps memory ran out: try a smaller -c", j.Cache, err)
}

// readEvents passes events on until the last one.
func readEvents(r io.Reader, watch func(event)) (last event, err error) {
	d := json.NewDecoder(r)
	for {
		var ev event
		if err := d.Decode(&ev); err != nil {
			io.Copy(io.Discard, r)
			return last, err
		}
		last = ev
		if ev.Row == nil && ev.Error == nil {
			watch(ev)
		}
	}
}
