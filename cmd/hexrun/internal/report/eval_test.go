package report

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var evalKeys = strings.Fields(`cache label windows n_ctx n_tokens kv_bytes bits_per_element refined_cells
	kld_mean kld_mean_lo kld_mean_hi kld_median kld_p999 kld_last64 kld_last64_lo kld_last64_hi
	kld_second_half kld_second_half_lo kld_second_half_hi same_top1 same_top1_lo same_top1_hi ppl ppl_lo ppl_hi model text`)

func ptr(x float64) *float64 { return &x }

var evalRows = []EvalRow{
	{Cache: "floor", Label: "f16 (steps of 32)", Windows: 1, NCtx: 256, NTokens: 256, KVBytes: 5 << 20, BitsPerElement: 16,
		KLDMean: 0.004, KLDMeanLo: ptr(0.003), KLDMeanHi: ptr(0.005), KLDMedian: 0.002, KLDP999: 0.03, KLDLast64: 0.0041,
		KLDSecondHalf: 0.0042, SameTop1: 0.95, SameTop1Lo: ptr(0.94), SameTop1Hi: ptr(0.96), PPL: 20.1234, PPLLo: ptr(19), PPLHi: ptr(21.5)},
	{Cache: "hex:tiny", Label: "hex:tiny", Windows: 4, NCtx: 2048, NTokens: 8192, KVBytes: 8e6, BitsPerElement: 2.8, RefinedCells: 205,
		KLDMean: 0.0177, KLDMeanLo: ptr(0.0161), KLDMeanHi: ptr(0.0195), KLDMedian: 0.005, KLDP999: 0.5, KLDLast64: 0.03,
		KLDLast64Lo: ptr(0.02), KLDLast64Hi: ptr(0.04), KLDSecondHalf: 0.0265, KLDSecondHalfLo: ptr(0.024), KLDSecondHalfHi: ptr(0.029),
		SameTop1: 0.934, SameTop1Lo: ptr(0.93), SameTop1Hi: ptr(0.938), PPL: 27.12, PPLLo: ptr(26), PPLHi: ptr(28)},
}

func writeEval(t *testing.T, format string, rows []EvalRow) string {
	var b bytes.Buffer
	require.NoError(t, WriteEval(&b, format, rows))
	return b.String()
}

func TestEvalJSON(t *testing.T) {
	var got []EvalRow
	require.NoError(t, json.Unmarshal([]byte(writeEval(t, "json", evalRows)), &got))
	assert.Equal(t, evalRows, got)
	assert.Equal(t, "[]\n", writeEval(t, "json", nil))
	lines := strings.Split(strings.TrimSpace(writeEval(t, "jsonl", evalRows)), "\n")
	require.Len(t, lines, 2)
	for _, line := range lines {
		assert.Equal(t, evalKeys, order(t, line))
	}
	assert.Contains(t, lines[0], `"kld_last64_lo":null`)
	assert.ErrorContains(t, WriteEval(&bytes.Buffer{}, "xml", nil), "use md, csv, json, jsonl")
}

func TestEvalCSV(t *testing.T) {
	checkColumns(t, writeEval(t, "csv", evalRows), evalKeys, evalRows)
}

func TestEvalMarkdown(t *testing.T) {
	lines := strings.Split(writeEval(t, "md", evalRows), "\n")
	require.Len(t, lines, 5)
	assert.True(t, strings.HasPrefix(lines[2], "| f16 (steps of 32) |"), lines[2])
	for _, want := range []string{" 0.00400 [0.00300, 0.00500] |", " 0.00410 |", " 95.0 [94.0, 96.0] % |", " 20.12 [19.00, 21.50] |"} {
		assert.Contains(t, lines[2], want)
	}
	for _, want := range []string{"| hex:tiny ", "|  2.80 |  17.5 % |     205 | ", " 0.0177 [0.0161, 0.0195] |", " 0.0265 [0.0240, 0.0290] |"} {
		assert.Contains(t, lines[3], want)
	}
}
