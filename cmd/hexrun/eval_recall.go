package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/corpus"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/human"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/kld"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/needle"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/progress"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/records"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/report"
	"github.com/hexkv/hexkv/hexkv"
)

const evalRecallHelp = `Facts (numbers that belong to names) are hidden in a long text, and the model is asked for one of them at the end. The
margin is the log-likelihood of the right answer less that of a wrong one, in nats: it says what a model has kept also where it
is too small to answer. While the text is read nothing tells which tokens will matter.

--kind needle hides one fact, and the wrong answer is a number that is not in the text; multikey hides eight, and the wrong answer
belongs to another name. Depths are spread evenly. With -f questions come from a file of RULER instead.

The text is read in steps of --step tokens, so that compression acts within it. Intervals are 95 % within these questions: others may differ by more.
The difference is taken question by question, and is 0 within the interval where a cache recalls as f16 does.`

func evalRecallCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:                      "recall",
		Usage:                     "margins of facts that are asked for at the end of a long text",
		Description:               evalRecallHelp,
		DisableSliceFlagSeparator: true,
		Flags: append(evalFlags(),
			text(aboutPrompt, "kind", "", "KIND|needle or multikey, of generated questions (multikey)"),
			whole(aboutPrompt, "items", "", "N|questions", 24, ""),
			whole(aboutPrompt, "length", "", "N|tokens of each text", 2048, ""),
			text(aboutPrompt, "file f", "", "FILE|questions of RULER, JSON lines, instead of generated ones"),
			whole(aboutCache, "step", "", "N|tokens computed at once, so that compression acts within the text", 64, ""),
		),
		Action: action(e, func(ctx context.Context, cmd *cli.Command) error { return evalRecall(ctx, e, cmd) }),
	}
}

// recallKey is a question to a cache: all that its margin depends on.
type recallKey struct {
	records.Origin
	Questions string `json:"questions"` // SHA-256 of the file, or of generated questions and what hides them
	Length    int    `json:"length"`    // of generated texts
	Items     int    `json:"items"`     // depth and filler of an item depend on how many there are
	Item      int    `json:"item"`
	Context   int    `json:"n_ctx"` // of the longest question
	Step      int    `json:"step"`
	Cache     string `json:"cache"`
}

type recallAnswer struct {
	Margin float64 `json:"margin"` // nats
	Bits   float64 `json:"bits_per_element"`
}

type recallRun struct {
	key      recallKey // without Items, Item, Context and Cache
	threads  int
	settings []setting // the first is f16
	items    []recallItem
	kept     *records.File[recallKey, recallAnswer]
}

// recallItem is a question in tokens.
type recallItem struct{ prompt, right, wrong []hexkv.TokenID }

func evalRecall(ctx context.Context, e *env, cmd *cli.Command) error {
	r := &recallRun{threads: max(0, cmd.Int("threads"))}
	r.key.Step, r.key.Length = cmd.Int("step"), cmd.Int("length")
	kind, path, count := cmd.String("kind"), cmd.String("file"), cmd.Int("items")
	switch {
	case count < 1:
		return usagef("--items %d: use 1 or more", count)
	case r.key.Step < 1 || r.key.Step > 4096:
		return usagef("--step %d: use 1 to 4096 tokens", r.key.Step)
	case path != "" && kind != "":
		return usagef("--kind %s is for generated questions; leave it or -f out", kind)
	case path != "" && cmd.IsSet("length"):
		return usagef("--length %d is for generated questions, those of a file are as long as they are; leave it or -f out", r.key.Length)
	}
	if kind == "" {
		kind = "multikey"
	}
	settings, err := evalSettings(e, cmd, r.key.Step)
	if err != nil {
		return err
	}
	r.settings = append([]setting{
		{cache: "f16", label: "f16", config: hexkv.CacheF16, step: r.key.Step},
		floorSetting(r.key.Step),
	}, settings...)
	questions, name, err := r.questions(e, kind, path, count)
	if err != nil {
		return err
	}
	if r.key.Origin, err = measuredWith(cmd); err != nil {
		return err
	}
	m, err := openModel(ctx, e, cmd)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := r.prepare(m, questions); err != nil {
		return err
	}
	if r.kept, err = records.Open[recallKey, recallAnswer]("hexrun eval recall", cmd.String("resume")); err != nil {
		return err
	}
	defer r.kept.Close()
	if err := r.measure(ctx, e, m); err != nil {
		return err
	}
	rows := r.rows(name)
	if cmd.String("output") == "md" {
		fmt.Fprintf(e.stdout, "%s, %s (%s) of about %s tokens, margin of the right answer in nats (steps of %d tokens)%s\n\n",
			r.key.Model, plural(len(r.items), "question"), name, human.Count(len(r.items[0].prompt)), r.key.Step, aboutIntervals(rows[0].MarginLo != nil))
	}
	return report.WriteRecall(e.stdout, cmd.String("output"), rows)
}

// questions reads or makes them, and says what they are.
func (r *recallRun) questions(e *env, kind, path string, count int) ([]needle.Question, string, error) {
	if path != "" {
		text, err := readText(e, path)
		if err != nil {
			return nil, "", err
		}
		name := filepath.Base(path)
		all, err := needle.Read(name, strings.NewReader(text), count)
		r.key.Questions, r.key.Length = newEvalText(name, text).hash, 0
		return all, name, err
	}
	var all []needle.Question
	for n := range count {
		q, err := needle.New(kind, n)
		if err != nil {
			return nil, "", usagef("--kind %s: use %s", kind, strings.Join(needle.Kinds, " or "))
		}
		all = append(all, q)
	}
	r.key.Questions = newEvalText(kind, fmt.Sprintf("%q", all)+corpus.Text).hash
	return all, kind, nil
}

// prepare makes tokens of the questions, and hides generated facts in the bundled text.
func (r *recallRun) prepare(m *hexkv.Model, questions []needle.Question) error {
	filler, err := m.Tokenize(corpus.Text, hexkv.TokenizeOptions{})
	if err != nil {
		return err
	}
	for n, q := range questions {
		var parts [4][]hexkv.TokenID // text, question, candidates
		for i, text := range []string{q.Text, q.Ask, q.Right, q.Wrong} {
			if parts[i], err = m.Tokenize(text, hexkv.TokenizeOptions{AddSpecial: i == 0}); err != nil {
				return err
			}
		}
		item := recallItem{prompt: parts[0], right: parts[2], wrong: parts[3]}
		if len(q.Facts) > 0 {
			var facts [][]hexkv.TokenID
			for _, f := range q.Facts {
				t, err := m.Tokenize(f, hexkv.TokenizeOptions{})
				if err != nil {
					return err
				}
				facts = append(facts, t)
			}
			if item.prompt = hide(parts[0], facts, filler, r.key.Length-len(parts[1]), n, len(questions)); item.prompt == nil {
				return usagef("--length %d: too short for the facts and the question; use more tokens", r.key.Length)
			}
		}
		item.prompt = append(item.prompt, parts[1]...)
		r.items = append(r.items, item)
	}
	if err := canHold(m, r.settings); err != nil {
		return err
	}
	if trained := m.Info().TrainedContext; r.longest() > trained {
		return usagef("a question has %s tokens and the model was trained with %s; use a shorter --length or another file",
			human.Count(r.longest()), human.Count(trained))
	}
	return nil
}

// hide spreads facts over length tokens of filler, which begins at another place in each question. A single fact is at the depth
// n/count; several are evenly apart. It returns nil if length is too short.
func hide(begin []hexkv.TokenID, facts [][]hexkv.TokenID, filler []hexkv.TokenID, length, n, count int) []hexkv.TokenID {
	room := length - len(begin)
	for _, f := range facts {
		room -= len(f)
	}
	if room < len(facts) {
		return nil
	}
	at := n * len(filler) / count
	all := slices.Clone(begin)
	fill := func(tokens int) {
		for range tokens {
			all = append(all, filler[at%len(filler)])
			at++
		}
	}
	if len(facts) == 1 {
		before := room * (2*n + 1) / (2 * count)
		fill(before)
		all = append(all, facts[0]...)
		fill(room - before)
		return all
	}
	for i, f := range facts {
		fill(room*(i+1)/(len(facts)+1) - room*i/(len(facts)+1))
		all = append(all, f...)
	}
	fill(room - room*len(facts)/(len(facts)+1))
	return all
}

func (r *recallRun) longest() int {
	n := 0
	for _, it := range r.items {
		n = max(n, len(it.prompt)+max(len(it.right), len(it.wrong)))
	}
	return n
}

func (r *recallRun) keyOf(s setting, item int) recallKey {
	k := r.key
	k.Items, k.Item, k.Context, k.Cache = len(r.items), item, r.longest(), s.cache
	return k
}

func (r *recallRun) measure(ctx context.Context, e *env, m *hexkv.Model) error {
	bar := progress.New(e.stderr, isTerminal(e.stderr))
	defer bar.Clear()
	for n, s := range r.settings {
		if err := r.measureSetting(ctx, m, s, func(i int) {
			bar.Set((float64(n)+float64(i)/float64(len(r.items)))/float64(len(r.settings)), fmt.Sprintf("%s, question %d of %d", s.label, i+1, len(r.items)))
		}); err != nil {
			return fmt.Errorf("%s: %w", s.label, err)
		}
	}
	return nil
}

// measureSetting asks one cache what is not in the records; it opens no session if all is.
func (r *recallRun) measureSetting(ctx context.Context, m *hexkv.Model, s setting, at func(item int)) error {
	var session *hexkv.Session
	defer func() {
		if session != nil {
			session.Close()
		}
	}()
	for i, it := range r.items {
		at(i)
		if _, ok := r.kept.Find(r.keyOf(s, i)); ok {
			continue
		}
		if session == nil {
			var err error
			if session, err = m.NewSession(ctx, &hexkv.SessionOptions{ContextSize: r.longest(), BatchSize: max(s.step, 512), UBatchSize: s.step,
				Threads: r.threads, AllLogits: true, Cache: s.config}); err != nil {
				return err
			}
		}
		answer, err := margin(ctx, session, it, i%2 == 1)
		if err != nil {
			return err
		}
		if err := r.kept.Add(r.keyOf(s, i), answer); err != nil {
			return err
		}
	}
	return nil
}

// margin reads the question and compares the candidates. Every other time the wrong one comes first: what the first one pushes
// out of the recent tokens is missing for the second.
func margin(ctx context.Context, s *hexkv.Session, it recallItem, wrongFirst bool) (recallAnswer, error) {
	if err := s.Clear(); err != nil {
		return recallAnswer{}, err
	}
	if err := s.Decode(ctx, it.prompt); err != nil {
		return recallAnswer{}, err
	}
	first, err := s.Logits(nil, -1)
	if err != nil {
		return recallAnswer{}, err
	}
	st, err := s.Stats()
	if err != nil {
		return recallAnswer{}, err
	}
	candidates := [2][]hexkv.TokenID{it.right, it.wrong}
	var sums [2]float64
	for n := range candidates {
		c := n
		if wrongFirst {
			c = 1 - n
		}
		if sums[c], err = likelihood(ctx, s, first, candidates[c]); err != nil {
			return recallAnswer{}, err
		}
		if err := keepOnly(s, len(it.prompt)); err != nil {
			return recallAnswer{}, err
		}
	}
	return recallAnswer{Margin: sums[0] - sums[1], Bits: st.BitsPerElement}, nil
}

// keepOnly drops what follows the first n tokens. A cache that cannot do that is emptied, and what comes next would be judged
// without the text.
func keepOnly(s interface{ Truncate(int) (int, error) }, n int) error {
	kept, err := s.Truncate(n)
	if err == nil && kept != n {
		err = fmt.Errorf("this model's cache cannot drop a candidate's tokens, %s of %s were kept: it is recurrent, or has a sliding window that the text has passed; "+
			"use a model with full attention, or a text that is shorter than the window (--length)", human.Count(kept), human.Count(n))
	}
	return err
}

// likelihood returns the logarithm of the probability of tokens, in nats; first predicts the first of them.
func likelihood(ctx context.Context, s *hexkv.Session, first []float32, tokens []hexkv.TokenID) (float64, error) {
	if err := s.DecodeAll(ctx, tokens); err != nil {
		return 0, err
	}
	sum := -kld.NLL(first, int(tokens[0]))
	var logits []float32
	for i, t := range tokens[1:] {
		var err error
		if logits, err = s.Logits(logits[:0], i); err != nil {
			return 0, err
		}
		sum -= kld.NLL(logits, int(t))
	}
	return sum, nil
}

// rows are one for each cache; name is that of the questions.
func (r *recallRun) rows(name string) []report.RecallRow {
	var rows []report.RecallRow
	for _, s := range r.settings {
		var margins, differences []float64
		row := report.RecallRow{Cache: s.cache, Label: s.label, Items: len(r.items), Length: len(r.items[0].prompt), Model: r.key.Model, Text: name}
		for i := range r.items {
			ref, _ := r.kept.Find(r.keyOf(r.settings[0], i))
			got, _ := r.kept.Find(r.keyOf(s, i))
			margins = append(margins, got.Margin)
			differences = append(differences, got.Margin-ref.Margin)
			if got.Margin > 0 {
				row.Right++
			}
			row.BitsPerElement = got.Bits
		}
		row.Margin, row.MarginLo, row.MarginHi = report.MeanOfItems(margins)
		row.Difference, row.DifferenceLo, row.DifferenceHi = report.MeanOfItems(differences)
		rows = append(rows, row)
	}
	return rows
}
