package main

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/report"
)

func TestBench(t *testing.T) {
	needModel(t)
	out, stderr, code := hexrun(t, "", "bench", "-p", "40", "-n", "2,0", "-d", "0,300", "-r", "2", "-t", "1", "--caches", "hex:tiny,f16", "-o", "json")
	require.Equal(t, exitOK, code, stderr)
	var rows []report.BenchRow
	require.NoError(t, json.Unmarshal([]byte(out), &rows))
	require.Len(t, rows, 2*2*2)
	for i, r := range rows {
		assert.Equal(t, []string{"hex:tiny", "f16"}[i%2], r.Cache)
		assert.Equal(t, []string{"pp40", "tg2", "pp40 @ d300", "tg2 @ d300"}[i/2], r.Test())
		assert.Equal(t, []int{256, 512}[r.NDepth/300], r.NCtx, "340 cells, rounded up")
		assert.Equal(t, 1, r.Threads)
		assert.Equal(t, 2, r.Rounds)
		assert.Positive(t, r.TPSMedian)
		assert.GreaterOrEqual(t, r.TPS, r.TPSMedian)
		require.NotNil(t, r.RatioToF16)
		assert.InDelta(t, r.TPS / *r.TPSF16, *r.RatioToF16, 1e-9)
		if r.Cache == "f16" {
			assert.Equal(t, 16.0, r.BitsPerElement)
			assert.Equal(t, 1.0, *r.RatioToF16)
		} else {
			assert.Less(t, r.KVBytes, rows[i+1].KVBytes)
		}
	}
}

func TestBenchRefuses(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-p", "0", "-n", "0"}, "leave nothing to measure"},
		{[]string{"-p", "1k"}, "--n-prompt 1k: use whole numbers"},
		{[]string{"-d", "-1"}, "--n-depth -1: use whole numbers"},
		{[]string{"-n", ","}, "--n-gen is empty"},
		{[]string{"-t", "1,999"}, "--threads 1,999: use whole numbers from 0 to 512"},
		{[]string{"-r", "0"}, "-r 0: use 1 to 1000 rounds"},
		{[]string{"--caches", " ,"}, "--caches names no cache"},
		{[]string{"--caches", "hex:nope"}, "nope"},
		{[]string{"-o", "sql"}, "use md, csv, json, jsonl"},
	} {
		_, stderr, code := hexrun(t, "", append([]string{"bench", "-m", "nothing.gguf"}, c.args...)...)
		assert.Equal(t, exitUsage, code, c.args)
		assert.Contains(t, stderr, c.want)
	}
}

func TestBenchSums(t *testing.T) {
	best, median := bestAndMedian([]float64{3, 9, 1, 5})
	assert.Equal(t, []float64{9, 3}, []float64{best, median})
	rows := []report.BenchRow{{Cache: "q8_0", TPS: 30}, {Cache: "hex:tiny", TPS: 60}}
	compareToF16(rows)
	assert.Nil(t, rows[1].RatioToF16, "nothing to compare with")
	rows = append(rows, report.BenchRow{Cache: "f16", TPS: 40})
	compareToF16(rows)
	assert.Equal(t, []float64{0.75, 1.5, 1}, []float64{*rows[0].RatioToF16, *rows[1].RatioToF16, *rows[2].RatioToF16})
}
