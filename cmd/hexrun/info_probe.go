package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/corpus"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/human"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/kld"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/progress"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/report"
	"github.com/hexkv/hexkv/hexkv"
)

const (
	probeTokens = 1024
	probeLeast  = 256 // tokens that a recommendation needs: nearly all of fewer are refined
	probeStep   = 64
	probeTime   = 55 * time.Second // so that a minute is enough
	// probeThreshold is how far above the floor a cache may be in the second half, in nats. SmolLM2-135M at q4_0 is 0.06 above.
	probeThreshold = 0.05
)

// probePresets are those for use; paper is for comparison with the publication.
var probePresets = []string{"tiny", "compact", "balanced", "quality"}

// probed is what info --probe finds out.
type probed struct {
	NTokens     int              `json:"n_tokens"`            // that were read; fewer than planned on slow machines
	Step        int              `json:"step"`                // tokens computed at once
	Threshold   float64          `json:"threshold"`           // of kld_second_half, above the floor
	Fragile     bool             `json:"fragile"`             // balanced is above the threshold
	Recommended string           `json:"recommended"`         // the smallest preset below the threshold; empty: none
	Sentences   []string         `json:"sentences,omitempty"` // what it means
	Rows        []report.EvalRow `json:"rows"`                // as of eval kld
}

// probe lets the presets read a text beside f16, for limit at most.
func probe(ctx context.Context, e *env, m *hexkv.Model, threads int, limit time.Duration) (probed, error) {
	p := probed{Step: probeStep, Threshold: probeThreshold, Rows: []report.EvalRow{}}
	info := m.Info()
	if !info.HEX {
		p.Sentences = []string{fmt.Sprintf("There is nothing to probe: no HEX cache for this model: %s.", info.HEXReason)}
		return p, nil
	}
	start := time.Now()
	settings := []setting{floorSetting(probeStep)}
	for _, preset := range probePresets {
		spec := "hex:" + preset
		settings = append(settings, setting{cache: spec, label: spec, config: hexkv.Config{Preset: preset}, step: probeStep})
	}
	size := min(probeTokens, info.TrainedContext)
	windows, err := cutWindows(m, newEvalText(corpus.Name, corpus.Text), 0, size, 1)
	if err != nil {
		return p, err
	}
	bar := progress.New(e.stderr, isTerminal(e.stderr))
	defer bar.Clear()
	last := time.Now()
	l := lockstep{model: m, size: size, step: probeStep, threads: threads, read: func(tokens int) bool {
		bar.Set(float64(tokens)/float64(size), fmt.Sprintf("probe: %s of %s tokens", human.Count(tokens), human.Count(size)))
		p.NTokens = tokens
		step := time.Since(last)
		last = time.Now()
		return time.Since(start)+step < limit
	}}
	results, err := l.run(ctx, settings, windows[0].tokens)
	if err != nil {
		return p, err
	}
	for i, s := range settings {
		p.Rows = append(p.Rows, evalRow(s, []kld.Result{results[i]}))
	}
	p.judge(size)
	return p, nil
}

// judge draws the conclusions from the rows, the first of which is the floor; planned is how many tokens were to be read.
func (p *probed) judge(planned int) {
	say := func(format string, args ...any) { p.Sentences = append(p.Sentences, fmt.Sprintf(format, args...)) }
	if p.NTokens < planned {
		say("The time was enough for %s of %s tokens.", human.Count(p.NTokens), human.Count(planned))
	}
	if p.NTokens < min(probeLeast, planned) {
		say("That is too few to recommend a preset; let hexrun eval kld -c 512 take its time.")
		return
	}
	floor := p.Rows[0].KLDSecondHalf
	var best *report.EvalRow
	for i, r := range p.Rows[1:] {
		above := r.KLDSecondHalf-floor > p.Threshold
		if r.Cache == "hex:balanced" && above {
			p.Fragile = true
			say("This model is fragile: with hex:balanced the KL divergence of the second half is %s nats, and the floor is %s.",
				human.Divergence(r.KLDSecondHalf), human.Divergence(floor))
		}
		if !above && (best == nil || r.KVBytes < best.KVBytes) {
			best = &p.Rows[1+i]
		}
	}
	if best == nil {
		say("No preset stays within %g nats of the floor (%s) in the second half; use a stock cache: -ctk q8_0 -ctv q8_0.", p.Threshold, human.Divergence(floor))
		return
	}
	p.Recommended = best.Cache[len("hex:"):]
	say("Use --hex %s: the smallest preset whose KL divergence in the second half, %s nats, is less than %g above the floor of %s.",
		p.Recommended, human.Divergence(best.KLDSecondHalf), p.Threshold, human.Divergence(floor))
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
