package main

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/report"
	"github.com/hexkv/hexkv/hexkv"
)

func TestProbe(t *testing.T) {
	needModel(t)
	out, stderr, code := hexrun(t, "", "info", "--probe", "-c", "576", "-o", "json")
	require.Equal(t, exitOK, code, stderr)
	assert.Empty(t, stderr)
	var got struct {
		Model modelFacts
		Plan  []plan
		Probe probed
	}
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	p := got.Probe
	require.Len(t, p.Rows, 2+len(probePresets))
	assert.Equal(t, floorCache, p.Rows[0].Cache)
	assert.Equal(t, probeMeasure, p.Rows[1].Cache)
	assert.Positive(t, p.Rows[0].KLDSecondHalf)
	for _, r := range p.Rows {
		assert.Equal(t, p.NTokens, r.NTokens, r.Cache)
		assert.Less(t, r.KLDSecondHalf, 0.2, r.Cache)
	}
	if p.NTokens == 576 { // else the machine is slow
		assert.False(t, p.Fragile)
		assert.Equal(t, "tiny", p.Recommended)
		assert.Positive(t, p.Threshold)
	}
	assert.NotEmpty(t, p.Sentences)

	out, _, code = hexrun(t, "", "info", "-c", "512", "-o", "json")
	require.Equal(t, exitOK, code)
	assert.NotContains(t, out, "probe", "not asked for")
}

// A machine that is too slow gets what there was time for, and no advice. The limit holds within a step of six caches.
func TestProbeWithoutTime(t *testing.T) {
	m, err := hexkv.OpenModel(context.Background(), needModel(t), nil)
	require.NoError(t, err)
	defer m.Close()
	run := func(ctx context.Context, limit time.Duration) (probed, time.Duration, error) {
		start := time.Now()
		p, err := probe(ctx, &env{stderr: io.Discard}, m, 0, 1, limit)
		return p, time.Since(start), err
	}
	for _, limit := range []time.Duration{0, 100 * time.Millisecond} {
		p, took, err := run(context.Background(), limit)
		require.NoError(t, err)
		assert.Less(t, took, limit+5*time.Second)
		assert.Zero(t, p.NTokens)
		assert.Empty(t, p.Rows)
		assert.Empty(t, p.Recommended)
		var b strings.Builder
		require.NoError(t, p.write(&b))
		assert.Equal(t, "\nThe time was not enough for one step of 64 tokens; let hexrun eval kld -c 1024 take its time.\n", b.String())
	}
	p, err := probe(context.Background(), &env{stderr: io.Discard}, m, 20000, 1, 0)
	require.NoError(t, err)
	require.Len(t, p.Sentences, 2)
	assert.Equal(t, "A context of 20,000 tokens is more than the model was trained with or the probe's text has; 8,192 were planned.", p.Sentences[0])
	stopped, stop := context.WithCancel(context.Background())
	stop()
	_, _, err = run(stopped, time.Minute)
	assert.Equal(t, exitInterrupted, exitCode(err), "Ctrl-C is not the limit")
}

// A deadline within a step leaves the steps before it.
func TestLockstepUntilADeadline(t *testing.T) {
	m, err := hexkv.OpenModel(context.Background(), needModel(t), nil)
	require.NoError(t, err)
	defer m.Close()
	w, err := probeWindow(m, 256)
	require.NoError(t, err)
	settings := []setting{floorSetting(probeStep), {cache: "q4_0", label: "q4_0", config: hexkv.Config{TypeK: "q4_0", TypeV: "q4_0"}, step: probeStep}}
	l := lockstep{model: m, size: 256, step: probeStep, threads: 1, read: func(int) bool { return true }}
	whole, err := l.run(context.Background(), settings, w.tokens)
	require.NoError(t, err)

	ctx := &late{Context: context.Background(), done: make(chan struct{})}
	l.partial = true
	l.read = func(tokens int) bool {
		if tokens == 128 {
			close(ctx.done)
		}
		return true
	}
	part, err := l.run(ctx, settings, w.tokens)
	require.NoError(t, err)
	for i := range settings {
		assert.Len(t, whole[i].Rows, 256)
		assert.Equal(t, whole[i].Rows[:128], part[i].Rows)
		assert.Equal(t, whole[i].KVBytes, part[i].KVBytes)
	}
	ctx.done = make(chan struct{})
	l.partial = false
	_, err = l.run(ctx, settings, w.tokens)
	assert.ErrorIs(t, err, context.DeadlineExceeded)
}

// late is a context whose deadline passes when done is closed.
type late struct {
	context.Context
	done chan struct{}
}

func (c *late) Done() <-chan struct{} { return c.done }
func (c *late) Err() error {
	select {
	case <-c.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		measure, tiny, balanced, quality float64
		fragile                          bool
		best                             string
		says                             string
	}{
		{0.064, 0.02, 0.01, 0.008, false, "tiny", "Use --hex tiny in contexts of about 1,024 tokens: the smallest preset that adds at most half of what q4_0 adds to the floor. " +
			"The KL divergence in the second half is 0.0200 nats; that of q4_0 is 0.0640, and the floor 0.00400."},
		{0.064, 0.04, 0.033, 0.01, false, "balanced", "Use --hex balanced"},
		{0.064, 0.3, 0.07, 0.02, true, "quality", "This model is fragile: with hex:balanced the KL divergence of the second half is 0.0700 nats, no better than the 0.0640 of q4_0; the floor is 0.00400."},
		{0.064, 0.3, 0.05, 0.04, false, "", "No preset adds at most half of the 0.0600 nats that q4_0 adds to the floor of 0.00400 in the second half; use a stock cache: -ctk q8_0 -ctv q8_0."},
		{0.0042, 0.0045, 0.004, 0.003, false, "tiny", "q4_0 is at the floor of 0.00400 nats, so the differences are too small to tell"},
		{0.0030, 0.0065, 0.0045, 0.003, false, "balanced", "q4_0 is at the floor"},
		{0.0042, 0.3, 0.2, 0.1, true, "", "No preset stays at the floor of 0.00400 nats in the second half, and q4_0 does; use a stock cache"},
	} {
		row := func(cache string, bytes uint64, kl float64) report.EvalRow {
			lo, hi := 0.8*kl, 1.2*kl
			return report.EvalRow{Cache: cache, KVBytes: bytes, KLDSecondHalf: kl, KLDSecondHalfLo: &lo, KLDSecondHalfHi: &hi, RefinedCells: 150}
		}
		p := probed{NTokens: 1024, Rows: []report.EvalRow{row(floorCache, 100, 0.004), row("q4_0", 45, c.measure),
			row("hex:quality", 40, c.quality), row("hex:balanced", 30, c.balanced), row("hex:tiny", 20, c.tiny)}}
		p.judge(1024)
		text := strings.Join(p.Sentences, "\n")
		assert.Equal(t, c.fragile, p.Fragile, text)
		assert.Equal(t, c.best, p.Recommended, text)
		assert.Contains(t, text, c.says)
	}
}

// No advice rests on a second half that is mostly refined, or too short for an interval.
func TestJudgeTooLittle(t *testing.T) {
	for _, c := range []struct {
		read, planned, refined int
		says                   string
	}{
		{256, 256, 40, "A context of 256 tokens is too small to recommend a preset; use -c 512 or more."},
		{448, 1024, 100, "That is too little to recommend a preset: it takes 512 tokens, and no more than a quarter of them refined (100 are); try again when the machine is idle, or let hexrun eval kld -c 1024 take its time."},
		{1024, 32768, 1000, "(1,000 are); use -c 1024, or let hexrun eval kld -c 32768 take its time."},
	} {
		p := probed{NTokens: c.read, Rows: []report.EvalRow{{Cache: floorCache}, {Cache: "q4_0", KLDSecondHalf: 0.1}, {Cache: "hex:tiny", RefinedCells: c.refined}}}
		p.judge(c.planned)
		assert.Empty(t, p.Recommended)
		assert.Contains(t, strings.Join(p.Sentences, "\n"), c.says)
	}
}
