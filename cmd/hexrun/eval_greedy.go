package main

import (
	"context"
	"fmt"
	"math"

	"github.com/urfave/cli/v3"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/corpus"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/human"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/kld"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/loops"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/progress"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/records"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/report"
	"github.com/hexkv/hexkv/hexkv"
)

const evalGreedyHelp = `Prompts are passages of a text, evenly spread. A stock f16 cache and each of --caches continue every prompt by --predict
tokens, always with the likeliest token that does not end the text. The table says after how many tokens a continuation parts
from that of f16 (the median over the prompts), and how many continuations end in a loop: their last 64 tokens, or four periods,
repeat with a period of at most 256 tokens. A continuation that has been in a loop for 256 tokens is cut there, so "not parted
when cut" counts those that follow f16 to the end, or to where both are cut or one is; they count as --predict tokens in the median.

The first row is the floor: f16 again, with the prompt read in other steps, as in hexrun eval kld. A single near-tie that falls
the other way parts two texts for good, so parting says how often caches decide near-ties otherwise, not which text is better.

With --resume FILE each finished continuation is written down, and a run that was interrupted goes on there. Those of another build
of hexrun, model, -t, -ngl, HEXKV_ISA or HEXKV_COARSE are computed again.`

func evalGreedyCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:                      "greedy",
		Usage:                     "where greedy continuations part from those of f16, and whether they loop",
		Description:               evalGreedyHelp,
		DisableSliceFlagSeparator: true,
		Flags: append(evalFlags(),
			texts(aboutPrompt, "file f", "FILE|the text", corpus.Name),
			whole(aboutPrompt, "prompts", "", "N|passages of the text", 50, ""),
			whole(aboutPrompt, "prompt-tokens", "", "N|tokens of each", 128, ""),
			whole(aboutPrompt, "predict n", "", "N|tokens of each continuation", 2000, ""),
		),
		Action: action(e, func(ctx context.Context, cmd *cli.Command) error { return evalGreedy(ctx, e, cmd) }),
	}
}

// greedyKey is a continuation: all that its tokens depend on.
type greedyKey struct {
	records.Origin
	Text    string `json:"text"`  // SHA-256
	First   int    `json:"first"` // token of the text
	Prompt  int    `json:"prompt_tokens"`
	Predict int    `json:"predict"`
	Cache   string `json:"cache"`
}

type greedyRun struct {
	key              greedyKey // without First and Cache
	prompts, threads int
	settings         []setting // the first is f16, the second the floor
	text             evalText
	starts           []int
	tokens           []hexkv.TokenID // of the text
	head             []hexkv.TokenID
	ends             map[hexkv.TokenID]bool // tokens that end a text
	kept             *records.File[greedyKey, []hexkv.TokenID]
	bar              *progress.Bar
	done             int // continuations
}

const promptStep = 512 // tokens of a prompt that are computed at once; the floor takes 32

func evalGreedy(ctx context.Context, e *env, cmd *cli.Command) error {
	r := &greedyRun{prompts: cmd.Int("prompts"), threads: max(0, cmd.Int("threads"))}
	r.key.Prompt, r.key.Predict = cmd.Int("prompt-tokens"), cmd.Int("predict")
	switch {
	case r.prompts < 1:
		return usagef("--prompts %d: use 1 or more", r.prompts)
	case r.key.Prompt < 1 || r.key.Prompt > 1<<20:
		return usagef("--prompt-tokens %d: use 1 to 1048576", r.key.Prompt)
	case r.key.Predict < 1 || r.key.Predict > 1<<20:
		return usagef("--predict %d: use 1 to 1048576 tokens", r.key.Predict)
	}
	settings, err := evalSettings(e, cmd, promptStep)
	if err != nil {
		return err
	}
	r.settings = append([]setting{
		{cache: "f16", label: "f16", config: hexkv.CacheF16, step: promptStep},
		{cache: floorCache, label: "f16 (prompt in steps of 32)", config: hexkv.CacheF16, step: 32},
	}, settings...)
	all, err := evalTexts(e, cmd.StringSlice("file"))
	if err != nil {
		return err
	}
	if len(all) > 1 {
		return usagef("-f %s: one text is enough; name it alone", cmd.StringSlice("file")[1])
	}
	r.text = all[0]
	if r.key.Origin, err = measuredWith(cmd); err != nil {
		return err
	}
	r.key.Text = r.text.hash
	m, err := openModel(ctx, e, cmd)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := r.prepare(m); err != nil {
		return err
	}
	if r.kept, err = records.Open[greedyKey, []hexkv.TokenID]("hexrun eval greedy", cmd.String("resume")); err != nil {
		return err
	}
	defer r.kept.Close()
	r.bar = progress.New(e.stderr, isTerminal(e.stderr))
	defer r.bar.Clear()
	for _, s := range r.settings {
		if err := r.measure(ctx, m, s); err != nil {
			return fmt.Errorf("%s: %w", s.label, err)
		}
	}
	r.bar.Clear()
	rows := r.rows()
	if cmd.String("output") == "md" {
		fmt.Fprintf(e.stdout, "%s, %s of %s tokens of %s, continued greedily by %s tokens\n\n", r.key.Model, plural(len(r.starts), "passage"),
			human.Count(r.key.Prompt), r.text.name, human.Count(r.key.Predict))
	}
	return report.WriteGreedy(e.stdout, cmd.String("output"), rows)
}

// measuredWith says what measures, for the keys of what is kept.
func measuredWith(cmd *cli.Command) (records.Origin, error) {
	path, err := modelPath(cmd)
	if err != nil {
		return records.Origin{}, err
	}
	layers, err := gpuLayers(cmd)
	if err != nil {
		return records.Origin{}, err
	}
	v := hexkv.Version()
	return records.NewOrigin(v.Version+" "+v.ISA, path, layers, max(0, cmd.Int("threads")))
}

func (r *greedyRun) prepare(m *hexkv.Model) error {
	var err error
	if r.tokens, err = m.Tokenize(r.text.text, hexkv.TokenizeOptions{}); err != nil {
		return err
	}
	if r.head, err = beginning(m); err != nil {
		return err
	}
	body := r.key.Prompt - len(r.head)
	if body < 1 || r.prompts > 1 && (len(r.tokens)-body)/(r.prompts-1) < 1 || len(r.tokens) < body {
		return usagef("%s has %s tokens, too few for %s of %s; use fewer or shorter ones, or a longer text (-f)",
			r.text.name, human.Count(len(r.tokens)), plural(r.prompts, "passage"), human.Count(r.key.Prompt))
	}
	for i := range r.prompts {
		r.starts = append(r.starts, i*(len(r.tokens)-body)/max(1, r.prompts-1))
	}
	r.ends = map[hexkv.TokenID]bool{}
	for t := range m.Info().Vocab {
		if m.IsEOG(hexkv.TokenID(t)) {
			r.ends[hexkv.TokenID(t)] = true
		}
	}
	return canHold(m, r.settings)
}

func (r *greedyRun) keyOf(s setting, start int) greedyKey {
	k := r.key
	k.First, k.Cache = start, s.cache
	return k
}

// measure continues every prompt with one cache.
func (r *greedyRun) measure(ctx context.Context, m *hexkv.Model, s setting) error {
	var session *hexkv.Session
	defer func() {
		if session != nil {
			session.Close()
		}
	}()
	for i, start := range r.starts {
		r.bar.Set(float64(r.done)/float64(len(r.starts)*len(r.settings)), fmt.Sprintf("%s, passage %d of %d", s.label, i+1, len(r.starts)))
		r.done++
		if _, ok := r.kept.Find(r.keyOf(s, start)); ok {
			continue
		}
		if session == nil {
			var err error
			if session, err = m.NewSession(ctx, &hexkv.SessionOptions{ContextSize: r.key.Prompt + r.key.Predict, BatchSize: s.step,
				UBatchSize: s.step, Threads: r.threads, Cache: s.config}); err != nil {
				return err
			}
		}
		tokens, err := r.continueFrom(ctx, session, start)
		if err != nil {
			return err
		}
		if err := r.kept.Add(r.keyOf(s, start), tokens); err != nil {
			return err
		}
	}
	return nil
}

const loopedLongEnough = 256 // tokens in a loop, after which nothing new comes

// continueFrom returns the greedy continuation of the passage at start.
func (r *greedyRun) continueFrom(ctx context.Context, s *hexkv.Session, start int) ([]hexkv.TokenID, error) {
	if err := s.Clear(); err != nil {
		return nil, err
	}
	next := append(append([]hexkv.TokenID{}, r.head...), r.tokens[start:start+r.key.Prompt-len(r.head)]...)
	var logits []float32
	var made []hexkv.TokenID
	looping := 0
	for len(made) < r.key.Predict && looping < loopedLongEnough {
		if err := s.Decode(ctx, next); err != nil {
			return nil, err
		}
		var err error
		if logits, err = s.Logits(logits[:0], -1); err != nil {
			return nil, err
		}
		for t := range r.ends {
			logits[t] = float32(math.Inf(-1))
		}
		t := hexkv.TokenID(kld.Top(logits))
		made = append(made, t)
		next = []hexkv.TokenID{t}
		if loops.Period(made) > 0 {
			looping++
		} else {
			looping = 0
		}
	}
	return made, nil
}

// rows sums up each setting but f16 itself, which is the measure.
func (r *greedyRun) rows() []report.GreedyRow {
	var rows []report.GreedyRow
	for _, s := range r.settings {
		row := report.GreedyRow{Cache: s.cache, Label: s.label, Prompts: len(r.starts), Predict: r.key.Predict, Model: r.key.Model, Text: r.text.name}
		var parted []int
		for _, start := range r.starts {
			ref, _ := r.kept.Find(r.keyOf(r.settings[0], start))
			got, _ := r.kept.Find(r.keyOf(s, start))
			at, same := parting(ref, got)
			if same {
				row.Same++
				at = r.key.Predict
			}
			parted = append(parted, at)
			row.Tokens += len(got)
			refLoops, loop := loops.Period(ref) > 0, loops.Period(got) > 0
			if loop {
				row.Loops++
			}
			if !refLoops {
				row.Free++
			}
			if loop && !refLoops {
				row.LoopsOfOwn++
			}
			if !loop && refLoops {
				row.LoopsLeft++
			}
		}
		row.Tokens /= len(r.starts)
		row.PartedLow, row.PartedMedian, row.PartedHigh = report.Quartiles(parted)
		rows = append(rows, row)
	}
	return rows
}

// parting returns where b leaves a; same: nowhere, as far as both were computed.
func parting(a, b []hexkv.TokenID) (at int, same bool) {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i, false
		}
	}
	return n, true
}
