package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v3"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/corpus"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/kld"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/records"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/report"
)

const evalKLDHelp = `A stock f16 cache and several caches beside it read the same windows of text in steps of --step tokens, and every
prediction of each cache is compared with that of f16: KL divergence in nats, share of positions with the same likeliest
token, perplexity. Steps are small so that compression acts within the text; refined says how many cells of a window had
a refinement at its end.

The first row is the floor: another f16 cache, read in steps of another length (32 for 64) so that llama.cpp computes
attention with another kernel. It says what a change of kernels alone does: with quantized weights llama.cpp rounds
activations, which amplifies the last bits of any change, and its kernel for fewer than 64 queries adds up V in f16, which
matters in long texts. Caches whose kernels add up in F32 can be below it. Only f16 and hex:off, read in the same steps, are exactly 0.

Intervals are 95 % within these windows, and other texts may differ by more: blocks of 64 consecutive positions are drawn again
1,000 times, with a fixed seed. Fewer than 4 blocks give no interval. Windows follow each other in the text, and each begins with the BOS token if
the model wants one.

With --resume FILE each finished window of a cache is written down, and a run that was interrupted goes on there. Windows of another
build of hexrun, model, -t, -ngl, HEXKV_ISA or HEXKV_COARSE are measured again.`

func evalKLDCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:                      "kld",
		Usage:                     "KL divergence from f16, top-1 agreement and perplexity over windows of text",
		Description:               evalKLDHelp,
		DisableSliceFlagSeparator: true,
		Flags: append(append(evalFlags(), sizeFlag(2048)),
			texts(aboutPrompt, "file f", "FILE|a text, may be repeated", corpus.Name),
			whole(aboutPrompt, "windows", "", "N|windows of each text, each as long as the context", 1, ""),
			whole(aboutPrompt, "start", "", "N|token of each text where its first window begins", 0, ""),
			whole(aboutCache, "step", "", "N|tokens computed at once, so that compression acts within the text", 64, ""),
			whole(aboutCache, "lockstep", "", "N|caches that are open at once and share one f16 cache; 1 takes the least memory", 4, ""),
		),
		Action: action(e, func(ctx context.Context, cmd *cli.Command) error { return evalKLD(ctx, e, cmd) }),
	}
}

// evalKLD measures, and prints the rows that are complete, also when it is interrupted.
func evalKLD(ctx context.Context, e *env, cmd *cli.Command) error {
	r, err := newEvalRun(e, cmd)
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
	if r.kept, err = records.Open[kld.Window, kld.Result]("hexrun eval kld", cmd.String("resume")); err != nil {
		return err
	}
	defer r.kept.Close()
	var printed int
	err = r.measure(ctx, e, m, func() error {
		if r.format != "jsonl" { // as they come
			return nil
		}
		rows := r.rows()[printed:]
		printed += len(rows)
		return report.WriteEval(e.stdout, r.format, rows)
	})
	r.explain(e, cmd.String("resume"), err)
	rows := r.rows()
	if r.format == "jsonl" || len(rows) == 0 {
		return err
	}
	if r.format == "md" {
		fmt.Fprintln(e.stdout, r.title(rows))
		fmt.Fprintln(e.stdout)
	}
	return errors.Join(report.WriteEval(e.stdout, r.format, rows), err)
}

// newEvalRun reads and checks all that needs no model.
func newEvalRun(e *env, cmd *cli.Command) (*evalRun, error) {
	r := &evalRun{
		format: cmd.String("output"), step: cmd.Int("step"), size: cmd.Int("ctx-size"),
		threads: max(0, cmd.Int("threads")), count: cmd.Int("windows"), start: cmd.Int("start"), beside: cmd.Int("lockstep"),
	}
	switch {
	case r.step < 1 || r.step > 4096:
		return nil, usagef("--step %d: use 1 to 4096 tokens", r.step)
	case r.size < 0:
		return nil, usagef("-c %d: use 1 or more tokens, or 0 for as many as the model was trained with", r.size)
	case r.count < 1:
		return nil, usagef("--windows %d: use 1 or more", r.count)
	case r.start < 0:
		return nil, usagef("--start %d: use 0 or more tokens", r.start)
	case r.beside < 1:
		return nil, usagef("--lockstep %d: use 1 or more caches", r.beside)
	}
	var err error
	if r.settings, err = evalSettings(e, cmd, r.step); err != nil {
		return nil, err
	}
	r.settings = append([]setting{floorSetting(r.step)}, r.settings...)
	if r.texts, err = evalTexts(e, cmd.StringSlice("file")); err != nil {
		return nil, err
	}
	r.origin, err = measuredWith(cmd)
	return r, err
}
