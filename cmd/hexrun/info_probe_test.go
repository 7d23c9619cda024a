package main

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/report"
	"github.com/hexkv/hexkv/hexkv"
)

func TestProbe(t *testing.T) {
	needModel(t)
	out, stderr, code := hexrun(t, "", "info", "--probe", "-c", "512", "-o", "json")
	require.Equal(t, exitOK, code, stderr)
	assert.Empty(t, stderr)
	var got struct {
		Model modelFacts
		Plan  []plan
		Probe probed
	}
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	p := got.Probe
	require.Len(t, p.Rows, 1+len(probePresets))
	assert.Equal(t, floorCache, p.Rows[0].Cache)
	assert.Positive(t, p.Rows[0].KLDSecondHalf)
	for _, r := range p.Rows {
		assert.Equal(t, p.NTokens, r.NTokens, r.Cache)
		assert.Less(t, r.KLDSecondHalf, 0.2, r.Cache)
	}
	if p.NTokens == probeTokens { // else the machine is slow
		assert.False(t, p.Fragile)
		assert.Contains(t, probePresets, p.Recommended)
	}
	assert.NotEmpty(t, p.Sentences)

	out, _, code = hexrun(t, "", "info", "-c", "512", "-o", "json")
	require.Equal(t, exitOK, code)
	assert.NotContains(t, out, "probe", "not asked for")
}

// A machine that is too slow gets what there was time for, and no advice.
func TestProbeWithoutTime(t *testing.T) {
	m, err := hexkv.OpenModel(context.Background(), needModel(t), nil)
	require.NoError(t, err)
	defer m.Close()
	p, err := probe(context.Background(), &env{stderr: io.Discard}, m, 1, 0)
	require.NoError(t, err)
	assert.Equal(t, probeStep, p.NTokens)
	assert.Len(t, p.Rows, 1+len(probePresets))
	assert.Empty(t, p.Recommended)
	var b strings.Builder
	require.NoError(t, p.write(&b))
	assert.Contains(t, b.String(), "over 64 tokens of Newton's Opticks")
	assert.Contains(t, b.String(), "\nThe time was enough for 64 of 1,024 tokens.\nThat is too few to recommend a preset; ")
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		tiny, balanced, quality float64
		fragile                 bool
		best                    string
		says                    string
	}{
		{0.02, 0.01, 0.008, false, "tiny", "Use --hex tiny: the smallest preset whose KL divergence in the second half, 0.0200 nats, is less than 0.05 above the floor of 0.00400."},
		{0.08, 0.053, 0.01, false, "balanced", "Use --hex balanced"},
		{0.3, 0.07, 0.02, true, "quality", "This model is fragile: with hex:balanced the KL divergence of the second half is 0.0700 nats, and the floor is 0.00400."},
		{0.3, 0.2, 0.1, true, "", "use a stock cache: -ctk q8_0 -ctv q8_0."},
	} {
		p := probed{NTokens: probeTokens, Threshold: probeThreshold, Rows: []report.EvalRow{
			{Cache: floorCache, KVBytes: 100, KLDSecondHalf: 0.004},
			{Cache: "hex:quality", KVBytes: 40, KLDSecondHalf: c.quality},
			{Cache: "hex:balanced", KVBytes: 30, KLDSecondHalf: c.balanced},
			{Cache: "hex:tiny", KVBytes: 20, KLDSecondHalf: c.tiny},
		}}
		p.judge(probeTokens)
		assert.Equal(t, c.fragile, p.Fragile)
		assert.Equal(t, c.best, p.Recommended)
		assert.Contains(t, strings.Join(p.Sentences, "\n"), c.says)
	}
}
