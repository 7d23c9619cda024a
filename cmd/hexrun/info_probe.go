package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/corpus"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/human"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/kld"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/progress"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/report"
	"github.com/hexkv/hexkv/hexkv"
)

const (
	probeTokens = 1024 // without -c
	probeStep   = 64
	probeTime   = 55 * time.Second // so that a minute is enough
	// probeLeast tokens have four blocks in their second half, the fewest that give intervals.
	probeLeast = 512
	// probeShare of the error that q4_0 adds to the floor is what a recommended preset may add, see RATIONALE.md.
	probeShare = 0.5
)

const probeMeasure = "q4_0" // what presets are compared with

// probePresets are those for use; paper is for comparison with the publication.
var probePresets = []string{"tiny", "compact", "balanced", "quality"}

// probed is what info --probe finds out.
type probed struct {
	NTokens     int              `json:"n_tokens"`            // that were read; fewer than planned on slow machines
	Step        int              `json:"step"`                // tokens computed at once
	Threshold   float64          `json:"threshold"`           // what a preset may add to the floor in the second half, nats: half of what q4_0 adds; 0: not known
	Fragile     bool             `json:"fragile"`             // balanced is no better than q4_0
	Recommended string           `json:"recommended"`         // the smallest preset within the threshold; empty: none
	Sentences   []string         `json:"sentences,omitempty"` // what it means
	Rows        []report.EvalRow `json:"rows"`                // as of eval kld; empty when the time was too short for one step
}

// probe lets q4_0 and the presets read a text beside f16, size tokens (0: probeTokens) and for limit at most. What was read when the limit came counts.
func probe(ctx context.Context, e *env, m *hexkv.Model, size, threads int, limit time.Duration) (probed, error) {
	p := probed{Step: probeStep, Rows: []report.EvalRow{}}
	info := m.Info()
	if !info.HEX {
		p.Sentences = []string{fmt.Sprintf("There is nothing to probe: no HEX cache for this model: %s.", info.HEXReason)}
		return p, nil
	}
	start := time.Now()
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	settings := []setting{floorSetting(probeStep), {cache: probeMeasure, label: probeMeasure, config: hexkv.Config{TypeK: probeMeasure, TypeV: probeMeasure}, step: probeStep}}
	for _, preset := range probePresets {
		spec := "hex:" + preset
		settings = append(settings, setting{cache: spec, label: spec, config: hexkv.Config{Preset: preset}, step: probeStep})
	}
	window, err := probeWindow(m, size)
	if err != nil {
		return p, err
	}
	asked := size
	if size = len(window.tokens); asked > size {
		p.Sentences = append(p.Sentences, fmt.Sprintf("A context of %s tokens is more than the model was trained with or the probe's text has; %s were planned.", human.Count(asked), human.Count(size)))
	}
	bar := progress.New(e.stderr, isTerminal(e.stderr))
	defer bar.Clear()
	last := time.Now()
	l := lockstep{model: m, size: size, step: probeStep, threads: threads, partial: true, read: func(tokens int) bool {
		bar.Set(float64(tokens)/float64(size), fmt.Sprintf("probe: %s of %s tokens", human.Count(tokens), human.Count(size)))
		p.NTokens = tokens
		step := time.Since(last)
		last = time.Now()
		return time.Since(start)+step < limit // a step that the limit would cut is not begun
	}}
	results, err := l.run(within, settings, window.tokens)
	switch {
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil: // while the caches were opened
	case errors.Is(err, hexkv.ErrMemory):
		return p, fmt.Errorf("%w (the probe opens %d caches of %s tokens; use a smaller -c, or hexrun eval kld --lockstep 1)", err, len(settings)+1, human.Count(size))
	case err != nil:
		return p, err
	}
	for i, s := range settings {
		if p.NTokens > 0 {
			row := evalRow(s, []kld.Result{results[i]})
			row.Model, row.Text = filepath.Base(info.Path), corpus.Name
			p.Rows = append(p.Rows, row)
		}
	}
	p.judge(size)
	return p, nil
}

// probeWindow cuts the first size tokens of the bundled text, or as many as it has and the model was trained with.
func probeWindow(m *hexkv.Model, size int) (window, error) {
	if size == 0 {
		size = probeTokens
	}
	t := newEvalText(corpus.Name, corpus.Text)
	tokens, err := m.Tokenize(t.text, hexkv.TokenizeOptions{AddSpecial: true})
	if err != nil {
		return window{}, err
	}
	windows, err := cutWindows(m, t, 0, min(size, m.Info().TrainedContext, len(tokens)), 1)
	if err != nil {
		return window{}, err
	}
	return windows[0], nil
}

// judge draws the conclusions from the rows: the floor, q4_0 and the presets; planned is how many tokens were to be read.
func (p *probed) judge(planned int) {
	say := func(format string, args ...any) { p.Sentences = append(p.Sentences, fmt.Sprintf(format, args...)) }
	if p.NTokens == 0 {
		say("The time was not enough for one step of %d tokens; let hexrun eval kld -c 1024 take its time.", p.Step)
		return
	}
	if p.NTokens < planned {
		say("The time was enough for %s of %s tokens.", human.Count(p.NTokens), human.Count(planned))
	}
	refined := 0
	for _, r := range p.Rows {
		refined = max(refined, r.RefinedCells)
	}
	switch { // at most half of what the second half reads may be refined, from its first token on
	case planned < probeLeast:
		say("A context of %s tokens is too small to recommend a preset; use -c %d or more.", human.Count(planned), probeLeast)
		return
	case p.NTokens < probeLeast || p.NTokens < 4*refined:
		remedy := fmt.Sprintf("use -c %d", probeTokens)
		if planned <= probeTokens {
			remedy = "try again when the machine is idle"
		}
		say("That is too little to recommend a preset: it takes %s tokens, and no more than a quarter of them refined (%s are); %s, or let hexrun eval kld -c %d take its time.",
			human.Count(probeLeast), human.Count(refined), remedy, max(planned, probeTokens))
		return
	}
	floor, measure := p.Rows[0], p.Rows[1]
	above := func(r report.EvalRow) float64 { return r.KLDSecondHalf - floor.KLDSecondHalf }
	atFloor := func(r report.EvalRow) bool {
		return above(r) <= 0 || r.KLDSecondHalfLo != nil && floor.KLDSecondHalfHi != nil && *r.KLDSecondHalfLo <= *floor.KLDSecondHalfHi
	}
	p.Threshold = max(0, probeShare*above(measure))
	fits := func(r report.EvalRow) bool { return above(r) <= p.Threshold }
	worse := func(r report.EvalRow) bool { return above(r) >= above(measure) }
	blurred := atFloor(measure)
	if blurred {
		p.Threshold = 0
		fits, worse = atFloor, func(r report.EvalRow) bool { return !atFloor(r) }
	}
	var best *report.EvalRow
	for i, r := range p.Rows[2:] {
		if r.Cache == "hex:balanced" && worse(r) {
			p.Fragile = true
			say("This model is fragile: with hex:balanced the KL divergence of the second half is %s nats, no better than the %s of %s; the floor is %s.",
				human.Divergence(r.KLDSecondHalf), human.Divergence(measure.KLDSecondHalf), measure.Cache, human.Divergence(floor.KLDSecondHalf))
		}
		if fits(r) && (best == nil || r.KVBytes < best.KVBytes) {
			best = &p.Rows[2+i]
		}
	}
	switch {
	case best == nil && blurred:
		say("No preset stays at the floor of %s nats in the second half, and %s does; use a stock cache: -ctk q8_0 -ctv q8_0.", human.Divergence(floor.KLDSecondHalf), measure.Cache)
		return
	case best == nil:
		say("No preset adds at most half of the %s nats that %s adds to the floor of %s in the second half; use a stock cache: -ctk q8_0 -ctv q8_0.",
			human.Divergence(above(measure)), measure.Cache, human.Divergence(floor.KLDSecondHalf))
		return
	}
	p.Recommended = best.Cache[len("hex:"):]
	if blurred {
		say("Use --hex %s in contexts of about %s tokens: %s is at the floor of %s nats, so the differences are too small to tell, and this is the smallest preset that is there too.",
			p.Recommended, human.Count(p.NTokens), measure.Cache, human.Divergence(floor.KLDSecondHalf))
	} else {
		say("Use --hex %s in contexts of about %s tokens: the smallest preset that adds at most half of what %s adds to the floor. The KL divergence in the second half is %s nats; that of %s is %s, and the floor %s.",
			p.Recommended, human.Count(p.NTokens), measure.Cache, human.Divergence(best.KLDSecondHalf), measure.Cache, human.Divergence(measure.KLDSecondHalf), human.Divergence(floor.KLDSecondHalf))
	}
	say("Errors grow with the length of the context; -c N probes a longer one.")
}

// write prints the table and the sentences.
func (p *probed) write(w io.Writer) error {
	fmt.Fprintln(w)
	if len(p.Rows) > 0 {
		fmt.Fprintf(w, "Probe: KL divergence from f16 in nats over %s tokens of %s (steps of %d tokens); the first row is the floor:\n\n",
			human.Count(p.NTokens), corpus.Name, p.Step)
		if err := report.WriteEval(w, "md", p.Rows); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	for _, s := range p.Sentences {
		fmt.Fprintln(w, s)
	}
	return nil
}
