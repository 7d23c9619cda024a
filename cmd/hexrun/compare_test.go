package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/report"
	"github.com/hexkv/hexkv/hexkv"
)

func TestCompare(t *testing.T) {
	needModel(t)
	const caches = "f16,hex:off,q4_0,hex:balanced,hex:tiny"
	out, stderr, code := hexrun(t, "", "compare", "-c", "512", "--caches", caches, "-o", "json")
	require.Equal(t, exitOK, code, stderr)
	assert.Empty(t, stderr, "no bar without a terminal")
	var rows []report.Row
	require.NoError(t, json.Unmarshal([]byte(out), &rows))
	require.Len(t, rows, strings.Count(caches, ",")+1)
	f16 := rows[0]
	for _, r := range rows {
		assert.Equal(t, 512, r.NCtx, r.Cache)
		assert.Equal(t, 512, r.NTokens, r.Cache)
		assert.InDelta(t, 16*float64(r.KVBytes)/float64(f16.KVBytes), r.BitsPerElement, 0.01, r.Cache)
		assert.Greater(t, r.RSSPeakBytes, uint64(50<<20), r.Cache)
		assert.Positive(t, r.ComputeBytes, r.Cache)
		assert.Positive(t, r.PPTPS, r.Cache)
		assert.Positive(t, r.TGTPS, r.Cache)
		assert.InDelta(t, f16.PPL, r.PPL, 0.1*f16.PPL, r.Cache)
		switch {
		case r.Cache == "f16" || r.Cache == "hex:off": // to the last bit
			assert.Zero(t, r.KLDMean, r.Cache)
			assert.Zero(t, r.KLDP999, r.Cache)
			assert.Equal(t, 1.0, r.SameTop1, r.Cache)
			assert.Equal(t, f16.PPL, r.PPL, r.Cache)
			assert.Equal(t, f16.KVBytes, r.KVBytes)
			assert.Zero(t, r.RefinedCells)
		default:
			assert.Positive(t, r.KLDMean, r.Cache)
			assert.Less(t, r.KLDMean, 0.2, r.Cache)
			assert.Less(t, r.KLDMedian, r.KLDP999, r.Cache)
			assert.Greater(t, r.SameTop1, 0.7, r.Cache)
		}
		if strings.HasPrefix(r.Cache, "hex:") && r.Cache != "hex:off" {
			assert.Positive(t, r.RefinedCells, r.Cache)
			most := map[string]uint64{"hex:balanced": 30, "hex:tiny": 22}[r.Cache] // % of f16
			assert.Less(t, r.KVBytes, f16.KVBytes*most/100, r.Cache)
		}
	}
}

// A short text leaves the context partly empty; rows come one by one; what was measured before an error is printed.
func TestCompareFormats(t *testing.T) {
	needModel(t)
	file := temp(t, "text.txt", strings.Repeat("The quick brown fox jumps over the lazy dog. ", 20))
	out, stderr, code := hexrun(t, "", "compare", "-c", "512", "-f", file, "--caches", "f16", "--step", "50", "-o", "md")
	require.Equal(t, exitOK, code, stderr)
	assert.Contains(t, stderr, "note: the text has only ")
	assert.Contains(t, out, "tokens of text.txt, KL divergence from f16 in nats (steps of 50 tokens)\n\n| cache ")

	out, _, code = hexrun(t, "", "compare", "-c", "256", "-f", file, "--caches", "q8_0", "-o", "jsonl")
	require.Equal(t, exitOK, code)
	assert.Equal(t, 1, strings.Count(out, "\n"))
	assert.True(t, strings.HasPrefix(out, `{"cache":"q8_0","n_ctx":256,"n_tokens":`), out)
}

func TestEvents(t *testing.T) {
	var out strings.Builder
	s := newSender(&out)
	s.send(event{Step: "loading"})
	s.send(event{Step: "speed", Done: 0.5})
	s.send(event{Row: &report.Row{Cache: "f16", PPL: 3}})
	var steps []string
	last, err := readEvents(strings.NewReader(out.String()), func(ev event) { steps = append(steps, ev.Step) })
	assert.Error(t, err, "the end")
	assert.Equal(t, []string{"loading", "speed"}, steps)
	assert.Equal(t, "f16", last.Row.Cache)
}

func TestErrorsCrossProcesses(t *testing.T) {
	there := func(err error) error { return newJobError(err).restore("q8_0") }
	memory := there(&hexkv.Error{Code: hexkv.CodeMemory, Text: "too large; use less"})
	assert.ErrorIs(t, memory, hexkv.ErrMemory)
	assert.Equal(t, "q8_0: too large; use less", memory.Error())
	assert.Equal(t, exitError, exitCode(actionError{memory}))
	assert.Equal(t, exitUsage, exitCode(actionError{there(usagef("nonsense"))}))
	assert.Equal(t, exitError, exitCode(actionError{there(errors.New("plain"))}))
}
