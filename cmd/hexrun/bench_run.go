package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/report"
	"github.com/hexkv/hexkv/hexkv"
)

// refill is how many tokens before the depth are read again between two rounds: as many as a preset keeps of recent ones.
const refill = 256

type benchTest struct{ prompt, gen int } // one of them is 0

func (t benchTest) tokens() int { return t.prompt + t.gen }

type benchCache struct {
	spec   string
	config hexkv.Config
}

// benchRun is all that hexrun bench measures.
type benchRun struct {
	model           string
	caches          []benchCache
	tests           []benchTest
	depths, threads []int
	rounds          int
	batch, ubatch   int
	progress        func(done float64, what string)

	tokens []hexkv.TokenID // random ones, as many as the longest test needs
	done   int             // rounds of all caches and tests
}

// longest returns how many tokens the largest test at a depth needs.
func (r *benchRun) longest(depth int) int {
	n := 0
	for _, t := range r.tests {
		n = max(n, depth+t.tokens())
	}
	return n
}

// prepare checks what needs the model, and draws the tokens.
func (r *benchRun) prepare(m *hexkv.Model) error {
	info := m.Info()
	for _, c := range r.caches {
		if c.config.IsHEX() && !info.HEX {
			return fmt.Errorf("no HEX cache for this model: %s; leave %s out of --caches", info.HEXReason, c.spec)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	r.tokens = make([]hexkv.TokenID, r.longest(slices.Max(r.depths)))
	for i := range r.tokens {
		r.tokens[i] = hexkv.TokenID(random.IntN(info.Vocab))
	}
	return nil
}

// run measures all, and passes on the rows of each test.
func (r *benchRun) run(ctx context.Context, m *hexkv.Model, rows func([]report.BenchRow) error) error {
	for _, threads := range r.threads {
		for _, depth := range r.depths {
			if err := r.depth(ctx, m, threads, depth, rows); err != nil {
				return err
			}
		}
	}
	return nil
}

// depth opens one session per cache, fills them to the depth, and runs the tests.
func (r *benchRun) depth(ctx context.Context, m *hexkv.Model, threads, depth int, rows func([]report.BenchRow) error) error {
	sessions := make([]*hexkv.Session, len(r.caches))
	for i, c := range r.caches {
		r.show(fmt.Sprintf("%s: reading %d tokens", c.spec, depth))
		s, err := m.NewSession(ctx, &hexkv.SessionOptions{ContextSize: r.longest(depth), BatchSize: r.batch, UBatchSize: r.ubatch,
			Threads: threads, Cache: c.config})
		if err != nil {
			return err
		}
		defer s.Close()
		sessions[i] = s
		for _, n := range []int{min(depth+1, 32), 1} { // both kinds of call once, to map the model and wake the threads
			if err := s.Decode(ctx, r.tokens[:min(n, s.ContextSize()-s.Len())]); err != nil {
				return err
			}
		}
		if err := s.Clear(); err != nil {
			return err
		}
	}
	for _, t := range r.tests {
		found, err := r.test(ctx, sessions, t, depth)
		if err != nil {
			return err
		}
		for i := range found {
			found[i].Threads = threads
		}
		if err := rows(found); err != nil {
			return err
		}
	}
	return nil
}

// test runs the rounds of one test, the caches in turns.
func (r *benchRun) test(ctx context.Context, sessions []*hexkv.Session, t benchTest, depth int) ([]report.BenchRow, error) {
	rates := make([][]float64, len(sessions))
	for range r.rounds {
		for i, s := range sessions {
			r.show(fmt.Sprintf("%s  %v @ d%d", r.caches[i].spec, t, depth))
			if err := r.toDepth(ctx, s, depth); err != nil {
				return nil, err
			}
			if err := settle(ctx); err != nil {
				return nil, err
			}
			start := time.Now()
			if err := t.round(ctx, s, r.tokens[depth:]); err != nil {
				return nil, err
			}
			rates[i] = append(rates[i], float64(t.tokens())/time.Since(start).Seconds())
			r.done++
		}
	}
	rows := make([]report.BenchRow, len(sessions))
	for i, s := range sessions {
		st, err := s.Stats()
		if err != nil {
			return nil, err
		}
		rows[i] = report.BenchRow{Model: r.model, Cache: r.caches[i].spec, NPrompt: t.prompt, NGen: t.gen, NDepth: depth, NCtx: st.ContextSize,
			Batch: r.batch, UBatch: r.ubatch, KVBytes: st.KV, BitsPerElement: st.BitsPerElement, Rounds: r.rounds}
		rows[i].TPS, rows[i].TPSMedian = bestAndMedian(rates[i])
	}
	compareToF16(rows)
	return rows, nil
}

// settle waits until the threads of the cache that had its turn before have stopped to spin for more work; until then they
// take half of the time of those that are measured.
func settle(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(300 * time.Millisecond):
		return nil
	}
}

// toDepth brings a session to the depth, with its most recent tokens read anew.
func (r *benchRun) toDepth(ctx context.Context, s *hexkv.Session, depth int) error {
	kept, err := s.Truncate(max(0, min(s.Len(), depth-refill)))
	if err != nil || kept == depth {
		return err
	}
	return s.Decode(ctx, r.tokens[kept:depth])
}

// round is what is timed.
func (t benchTest) round(ctx context.Context, s *hexkv.Session, tokens []hexkv.TokenID) error {
	if t.prompt > 0 {
		return s.Decode(ctx, tokens[:t.prompt])
	}
	for i := range t.gen {
		if err := s.Decode(ctx, tokens[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// show draws the progress bar.
func (r *benchRun) show(what string) {
	if r.progress != nil {
		all := r.rounds * len(r.tests) * len(r.depths) * len(r.threads) * len(r.caches)
		r.progress(float64(r.done)/float64(all), what)
	}
}

// bestAndMedian returns the highest and the middle rate; of an even number, the lower middle one.
func bestAndMedian(rates []float64) (best, median float64) {
	sorted := slices.Sorted(slices.Values(rates))
	return sorted[len(sorted)-1], sorted[(len(sorted)-1)/2]
}

// compareToF16 fills the last columns of the rows of one test.
func compareToF16(rows []report.BenchRow) {
	for _, f16 := range rows {
		if f16.Cache != "f16" {
			continue
		}
		for i := range rows {
			tps, ratio := f16.TPS, rows[i].TPS/f16.TPS
			rows[i].TPSF16, rows[i].RatioToF16 = &tps, &ratio
		}
		return
	}
}
