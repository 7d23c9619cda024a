package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/human"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/kld"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/report"
	"github.com/hexkv/hexkv/hexkv"
)

const (
	decodeTokens = 32               // decoded one at a time in the speed pass
	leastTokens  = 4 * decodeTokens // of text
	speedShare   = 0.3              // of the progress bar
)

func measureCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:   measureName,
		Usage:  "measure one cache for compare",
		Hidden: true,
		Action: action(e, func(ctx context.Context, _ *cli.Command) error {
			var j job
			if err := json.NewDecoder(e.stdin).Decode(&j); err != nil {
				return usagef("%s is a part of compare; use hexrun compare", measureName)
			}
			out := newSender(e.stdout)
			row, err := measure(ctx, e, j, out.send)
			if err != nil {
				out.send(event{Error: newJobError(err)})
				return nil // compare reports it
			}
			out.send(event{Row: &row})
			return nil
		}),
	}
}

// measure runs both passes of one job.
func measure(ctx context.Context, e *env, j job, send func(event)) (report.Row, error) {
	row := report.Row{Cache: j.Cache}
	cache, err := hexkv.ParseConfig(j.Cache)
	if err != nil {
		return row, err
	}
	showLog(e, j.Verbose)
	send(event{Step: "loading"})
	m, err := hexkv.OpenModel(ctx, j.Model, &hexkv.ModelOptions{GPULayers: j.GPULayers, NoMmap: j.NoMmap})
	if err != nil {
		return row, err
	}
	defer m.Close()
	if info := m.Info(); cache.IsHEX() && !info.HEX {
		return row, fmt.Errorf("no HEX cache for this model: %s; leave it out of --caches", info.HEXReason)
	}
	tokens, err := jobTokens(m, &j, send)
	if err != nil {
		return row, err
	}
	row.NTokens = len(tokens)
	if err := measureSpeed(ctx, m, j, cache, tokens, &row, send); err != nil {
		return row, err
	}
	row.RSSPeakBytes = peakResident() // before the second cache
	return row, measureQuality(ctx, m, j, cache, tokens, &row, send)
}

// jobTokens returns the text's first tokens, and sets j.Tokens when it is 0.
func jobTokens(m *hexkv.Model, j *job, send func(event)) ([]hexkv.TokenID, error) {
	if j.Tokens == 0 {
		j.Tokens = m.Info().TrainedContext
	}
	tokens, err := m.Tokenize(j.Text, hexkv.TokenizeOptions{AddSpecial: true})
	if err != nil {
		return nil, err
	}
	switch {
	case min(len(tokens), j.Tokens) < leastTokens:
		return nil, usagef("%d tokens are too few to compare; use a longer text (-f) and at least -c %d", min(len(tokens), j.Tokens), leastTokens)
	case len(tokens) < j.Tokens:
		send(event{Note: fmt.Sprintf("the text has only %s tokens, so a context of %s is not filled; name a longer one with -f",
			human.Count(len(tokens)), human.Count(j.Tokens))})
	}
	return tokens[:min(len(tokens), j.Tokens)], nil
}

// measureSpeed prefills all tokens but the last 32, then decodes 32 greedily, in the session that a user would open.
func measureSpeed(ctx context.Context, m *hexkv.Model, j job, cache hexkv.Config, tokens []hexkv.TokenID, row *report.Row, send func(event)) error {
	send(event{Step: "speed: prefill", Done: 0.02})
	s, err := m.NewSession(ctx, &hexkv.SessionOptions{ContextSize: j.Tokens, BatchSize: j.Batch, UBatchSize: j.UBatch, Threads: j.Threads, Cache: cache})
	if err != nil {
		return err
	}
	defer s.Close()
	for _, n := range []int{decodeTokens, 1} { // both kinds of call once, to map the model and wake the threads
		if err := s.Decode(ctx, tokens[:n]); err != nil {
			return err
		}
	}
	if err := s.Clear(); err != nil {
		return err
	}

	prompt := tokens[:len(tokens)-decodeTokens]
	start := time.Now()
	if err := s.Decode(ctx, prompt); err != nil {
		return err
	}
	row.PPTPS = float64(len(prompt)) / time.Since(start).Seconds()

	send(event{Step: "speed: decode", Done: speedShare * 0.8})
	var logits []float32
	var spent time.Duration
	for range decodeTokens {
		if logits, err = s.Logits(logits[:0], -1); err != nil {
			return err
		}
		next := []hexkv.TokenID{hexkv.TokenID(kld.Top(logits))}
		start := time.Now()
		if err := s.Decode(ctx, next); err != nil {
			return err
		}
		spent += time.Since(start)
	}
	row.TGTPS = decodeTokens / spent.Seconds()

	st, err := s.Stats()
	if err != nil {
		return err
	}
	row.NCtx, row.KVBytes, row.BitsPerElement, row.ComputeBytes = st.ContextSize, st.KV, st.BitsPerElement, st.Compute
	if st.Entries > 0 {
		row.RefinedCells = int(math.Round(float64(st.RefinedEntries()) * float64(st.Used) / float64(st.Entries)))
	}
	return nil
}

// measureQuality feeds the cache and an f16 cache in lockstep and compares every prediction.
func measureQuality(ctx context.Context, m *hexkv.Model, j job, cache hexkv.Config, tokens []hexkv.TokenID, row *report.Row, send func(event)) error {
	open := func(c hexkv.Config) (*hexkv.Session, error) {
		return m.NewSession(ctx, &hexkv.SessionOptions{ContextSize: j.Tokens, BatchSize: j.Step, UBatchSize: j.Step,
			Threads: j.Threads, AllLogits: true, Cache: c})
	}
	ref, err := open(hexkv.CacheF16)
	if err != nil {
		return err
	}
	defer ref.Close()
	s, err := open(cache)
	if err != nil {
		return err
	}
	defer s.Close()

	rows := make([]kld.Row, 0, len(tokens))
	for at := 0; at < len(tokens); at += j.Step {
		chunk := tokens[at:min(at+j.Step, len(tokens))]
		for _, each := range []*hexkv.Session{ref, s} {
			if err := each.DecodeAll(ctx, chunk); err != nil {
				return err
			}
		}
		next := tokens[at+1 : min(at+j.Step+1, len(tokens))]
		if rows, err = compareChunk(predictions{ref, 0}, predictions{s, 0}, rows, len(chunk), next); err != nil {
			return err
		}
		done := at + len(chunk)
		send(event{
			Step: fmt.Sprintf("quality: %s of %s tokens", human.Count(done), human.Count(len(tokens))),
			Done: speedShare + (1-speedShare)*float64(done)/float64(len(tokens)),
		})
	}
	sum := kld.Summarize(rows)
	if !sum.Finite() {
		return errors.New("the predictions of this cache are not finite numbers; please report this")
	}
	row.KLDMean, row.KLDMedian, row.KLDP999, row.KLDLast64 = sum.Mean, sum.Median, sum.P999, sum.Last64
	row.KLDSecondHalf, row.SameTop1, row.PPL = sum.SecondHalf, sum.SameTop1, sum.PPL
	return nil
}
