package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/kld"
	"github.com/hexkv/hexkv/hexkv"
)

// setting is one cache to compare with f16.
type setting struct {
	cache  string // specification, or floorCache
	label  string // for people
	config hexkv.Config
	step   int // tokens it computes at once; only the floor has others than the f16 cache beside it
}

// floorCache is the name of f16 that reads in other steps than the f16 beside it: how far predictions move when kernels change
// and nothing else.
const floorCache = "floor"

// otherKernel is where ggml's attention of f16 caches on a CPU changes its kernel (GGML_FA_TILE_Q): steps of so many tokens or
// more are computed by another one than shorter steps, while any two lengths on the same side give the same bits.
const otherKernel = 64

// floorSetting takes steps on the other side of otherKernel: the half, or less, of steps that are longer, and a multiple of
// shorter ones.
func floorSetting(step int) setting {
	other := step * ceil(otherKernel, step)
	if step >= otherKernel {
		other = ceil(step, max(2, ceil(step, otherKernel-1)))
	}
	return setting{cache: floorCache, label: fmt.Sprintf("f16 (steps of %d)", other), config: hexkv.CacheF16, step: other}
}

// ceil returns a/b, rounded up.
func ceil(a, b int) int { return (a + b - 1) / b }

// lockstep reads a window with several caches and an f16 cache beside them, step by step, so that no predictions have to be kept.
type lockstep struct {
	model               *hexkv.Model
	size, step, threads int
	read                func(tokens int) bool // called after each step with the tokens read so far; false stops
	partial             bool                  // a deadline of the context ends the window, and what was read before it counts
}

// run returns a result for each setting. Sessions are opened for it: nothing of an earlier window is left in them.
func (l *lockstep) run(ctx context.Context, settings []setting, tokens []hexkv.TokenID) ([]kld.Result, error) {
	ref, err := l.open(ctx, hexkv.CacheF16, l.step)
	if err != nil {
		return nil, err
	}
	defer ref.Close()
	sessions := make([]*hexkv.Session, len(settings))
	for i, s := range settings {
		if sessions[i], err = l.open(ctx, s.config, s.step); err != nil {
			if errors.Is(err, hexkv.ErrMemory) {
				err = fmt.Errorf("%w (%s is cache %d of %d that are open at once; --lockstep 1 opens the fewest)", err, s.label, i+2, len(settings)+1)
			}
			return nil, err
		}
		defer sessions[i].Close()
	}
	results := make([]kld.Result, len(settings))
	for at := 0; at < len(tokens); at += l.step {
		n := min(l.step, len(tokens)-at)
		err := l.readStep(ctx, ref, sessions, settings, results, tokens, at, n)
		if l.partial && errors.Is(err, context.DeadlineExceeded) {
			for i := range results {
				results[i].Rows = results[i].Rows[:min(at, len(results[i].Rows))] // all of them the same positions
			}
			break
		}
		if err != nil {
			return nil, err
		}
		if !l.read(at + n) {
			break
		}
	}
	for i, s := range sessions {
		if err := l.describe(s, &results[i]); err != nil {
			return nil, fmt.Errorf("%s: %w", settings[i].label, err)
		}
	}
	return results, nil
}

// readStep reads the n tokens from at on with every cache, and appends the comparisons to results.
func (l *lockstep) readStep(ctx context.Context, ref *hexkv.Session, sessions []*hexkv.Session, settings []setting, results []kld.Result,
	tokens []hexkv.TokenID, at, n int) error {
	if err := ref.DecodeAll(ctx, tokens[at:at+n]); err != nil {
		return err
	}
	for i, s := range sessions {
		rows, err := l.follow(ctx, ref, s, settings[i].step, results[i].Rows, tokens, at, n)
		if err != nil {
			return fmt.Errorf("%s: %w", settings[i].label, err)
		}
		results[i].Rows = rows
	}
	return nil
}

func (l *lockstep) open(ctx context.Context, cache hexkv.Config, step int) (*hexkv.Session, error) {
	return l.model.NewSession(ctx, &hexkv.SessionOptions{ContextSize: l.size, BatchSize: step, UBatchSize: step, Threads: l.threads,
		AllLogits: true, Cache: cache})
}

// follow reads on in steps of its own and appends the comparison of the n tokens from at on, which ref has read at once.
func (l *lockstep) follow(ctx context.Context, ref, s *hexkv.Session, step int, rows []kld.Row, tokens []hexkv.TokenID, at, n int) ([]kld.Row, error) {
	for done := 0; done < n; {
		ahead := (at + done) % step // rows of the last decode that were compared before; longer steps than ref's are ahead of it
		if step < l.step {
			ahead = 0
		}
		from := at + done
		if ahead == 0 {
			end := min(from+step, len(tokens))
			if step < l.step {
				end = min(end, at+n)
			}
			if err := s.DecodeAll(ctx, tokens[from:end]); err != nil {
				return nil, err
			}
		}
		m := min(step, n-done)
		next := tokens[from+1 : min(from+m+1, len(tokens))]
		var err error
		if rows, err = compareChunk(predictions{ref, done}, predictions{s, ahead}, rows, m, next); err != nil {
			return nil, err
		}
		done += m
	}
	return rows, nil
}

// describe adds what the session took, and refuses predictions that are no numbers.
func (l *lockstep) describe(s *hexkv.Session, r *kld.Result) error {
	st, err := s.Stats()
	if err != nil {
		return err
	}
	r.NCtx, r.KVBytes, r.BitsPerElement = st.ContextSize, st.KV, st.BitsPerElement
	if st.Entries > 0 {
		r.RefinedCells = float64(st.RefinedEntries()) * float64(st.Used) / float64(st.Entries)
	}
	if len(r.Rows) > 0 && !kld.Summarize(r.Rows).Finite() {
		return errors.New("the predictions of this cache are not finite numbers; please report this")
	}
	return nil
}
