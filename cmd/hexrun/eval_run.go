package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/human"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/kld"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/progress"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/records"
	"github.com/hexkv/hexkv/hexkv"
)

// evalRun is one run of eval kld: every setting reads every window, and all results are in records.
type evalRun struct {
	origin records.Origin
	format string

	size, step, threads int
	count, start        int // windows of each text, token where the first one begins
	beside              int // settings that share one f16 cache

	settings []setting
	texts    []evalText
	windows  []window
	kept     *records.File[kld.Window, kld.Result]
}

// prepare checks what needs the model, and cuts the windows.
func (r *evalRun) prepare(m *hexkv.Model) error {
	if r.size == 0 {
		r.size = m.Info().TrainedContext
	}
	if trained := m.Info().TrainedContext; r.size > trained {
		return usagef("-c %d: the model was trained with %s tokens, and errors of longer windows say nothing about caches; use -c %d at most",
			r.size, human.Count(trained), trained)
	}
	if err := canHold(m, r.settings); err != nil {
		return err
	}
	for _, t := range r.texts {
		windows, err := cutWindows(m, t, r.start, r.size, r.count)
		if err != nil {
			return err
		}
		r.windows = append(r.windows, windows...)
	}
	return nil
}

// canHold refuses HEX settings that the model cannot have.
func canHold(m *hexkv.Model, settings []setting) error {
	info := m.Info()
	for _, s := range settings {
		if s.config.IsHEX() && !info.HEX {
			return fmt.Errorf("no HEX cache for this model: %s; leave %s out", info.HEXReason, s.label)
		}
	}
	return nil
}

// key says which question of the records a setting and a window are.
func (r *evalRun) key(s setting, w window) kld.Window {
	return kld.Window{Origin: r.origin, Text: w.hash, First: w.first, Tokens: len(w.tokens), Step: r.step, Cache: s.cache}
}

// missing returns the settings whose result for w is not in the records.
func (r *evalRun) missing(settings []setting, w window) []setting {
	var all []setting
	for _, s := range settings {
		if _, ok := r.kept.Find(r.key(s, w)); !ok {
			all = append(all, s)
		}
	}
	return all
}

// measure fills the records: group by group, so that rows are complete early, and each group window by window. It calls finished
// after each group.
func (r *evalRun) measure(ctx context.Context, e *env, m *hexkv.Model, finished func() error) error {
	groups := slices.Collect(slices.Chunk(r.settings, r.beside))
	total, done := 0, 0 // tokens, of all caches
	for _, group := range groups {
		for _, w := range r.windows {
			total += len(w.tokens) * cachesOf(r.missing(group, w))
		}
	}
	bar := progress.New(e.stderr, isTerminal(e.stderr))
	defer bar.Clear()
	for _, group := range groups {
		for n, w := range r.windows {
			missing := r.missing(group, w)
			if len(missing) == 0 {
				continue
			}
			l := lockstep{model: m, size: r.size, step: r.step, threads: r.threads, read: func(tokens int) bool {
				bar.Set(float64(done+tokens*cachesOf(missing))/float64(total), fmt.Sprintf("window %s of %s  %s of %s tokens  %s",
					human.Count(n+1), human.Count(len(r.windows)), human.Count(tokens), human.Count(len(w.tokens)), labels(missing)))
				return true
			}}
			results, err := l.run(ctx, missing, w.tokens)
			if err != nil {
				return err
			}
			for i, s := range missing {
				if err := r.kept.Add(r.key(s, w), results[i]); err != nil {
					return err
				}
			}
			done += len(w.tokens) * cachesOf(missing)
		}
		bar.Clear()
		if err := finished(); err != nil {
			return err
		}
	}
	return nil
}

// cachesOf counts the caches that decode: those of the settings and the f16 cache beside them.
func cachesOf(settings []setting) int {
	if len(settings) == 0 {
		return 0
	}
	return len(settings) + 1
}

// labels fits on the line of the progress bar, which must not wrap.
func labels(settings []setting) string {
	if len(settings) == 1 {
		return settings[0].label
	}
	return fmt.Sprintf("%s and %d more", settings[0].label, len(settings)-1)
}

// explain says how to go on after an error, and where compression did not act.
func (r *evalRun) explain(e *env, resume string, err error) {
	if err != nil {
		all, kept := 0, 0
		for _, w := range r.windows {
			all += len(r.settings)
			kept += len(r.settings) - len(r.missing(r.settings, w))
		}
		switch {
		case resume == "":
			e.note("note: a window that is finished is kept with --resume FILE, and the same command then goes on from there")
		default:
			e.note("note: %s of %s windows are in %s (of all caches); the same command goes on from there", human.Count(kept), human.Count(all), resume)
		}
	}
	for _, s := range r.settings {
		for _, w := range r.windows {
			if got, ok := r.kept.Find(r.key(s, w)); ok && s.config.IsHEX() && got.RefinedCells >= float64(len(w.tokens)) {
				e.note("note: %s refined all %s cells of a window, so only a longer one (-c) shows what it does", s.label, human.Count(len(w.tokens)))
				break
			}
		}
	}
}
