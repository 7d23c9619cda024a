package report

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var keys = strings.Fields(`cache n_ctx n_tokens kv_bytes bits_per_element refined_cells compute_bytes rss_peak_bytes
	pp_tps tg_tps kld_mean kld_median kld_p999 kld_last64 kld_second_half same_top1 ppl`)

var rows = []Row{
	{Cache: "f16", NCtx: 2048, NTokens: 2048, KVBytes: 47185920, BitsPerElement: 16, ComputeBytes: 100 << 20,
		RSSPeakBytes: 300 << 20, PPTPS: 345.6, TGTPS: 45.67, SameTop1: 1, PPL: 20.1234},
	{Cache: "hex:balanced", NCtx: 2048, NTokens: 2048, KVBytes: 11e6, BitsPerElement: 3.73, RefinedCells: 205,
		ComputeBytes: 100 << 20, RSSPeakBytes: 264 << 20, PPTPS: 333, TGTPS: 44, KLDMean: 0.0078, KLDMedian: 0.0021,
		KLDP999: 0.75, KLDLast64: 0.0123, KLDSecondHalf: 0.01, SameTop1: 0.9661, PPL: 20.2},
}

func write(t *testing.T, format string, rows []Row) string {
	var b bytes.Buffer
	require.NoError(t, Write(&b, format, rows))
	return b.String()
}

// order returns the keys of a JSON object as they come.
func order(t *testing.T, object string) (names []string) {
	d := json.NewDecoder(strings.NewReader(object))
	_, err := d.Token()
	require.NoError(t, err)
	for d.More() {
		name, err := d.Token()
		require.NoError(t, err)
		names = append(names, name.(string))
		_, err = d.Token()
		require.NoError(t, err)
	}
	return names
}

func TestJSON(t *testing.T) {
	var got []Row
	require.NoError(t, json.Unmarshal([]byte(write(t, "json", rows)), &got))
	assert.Equal(t, rows, got)
	assert.Equal(t, "[]\n", write(t, "json", nil))

	lines := strings.Split(strings.TrimSpace(write(t, "jsonl", rows)), "\n")
	require.Len(t, lines, 2)
	for i, line := range lines {
		assert.Equal(t, keys, order(t, line))
		var r Row
		require.NoError(t, json.Unmarshal([]byte(line), &r))
		assert.Equal(t, rows[i], r)
	}
}

func TestCSV(t *testing.T) {
	checkColumns(t, write(t, "csv", rows), keys, rows)
}

// checkColumns: every column of CSV holds what the JSON key of its name holds; null is empty.
func checkColumns[R any](t *testing.T, text string, keys []string, rows []R) {
	t.Helper()
	records, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	require.NoError(t, err)
	require.Len(t, records, 1+len(rows))
	assert.Equal(t, keys, records[0])
	for i, r := range rows {
		data, err := json.Marshal(r)
		require.NoError(t, err)
		var object map[string]any
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		require.NoError(t, d.Decode(&object))
		for c, key := range keys {
			switch v := object[key].(type) {
			case string:
				assert.Equal(t, v, records[i+1][c])
			case json.Number:
				assert.Equal(t, v.String(), records[i+1][c], key)
			case nil:
				assert.Empty(t, records[i+1][c], key)
			}
		}
	}
}

func TestMarkdown(t *testing.T) {
	lines := strings.Split(write(t, "md", rows), "\n")
	require.Len(t, lines, 5)
	assert.Equal(t, "| cache        | KV cache |  bits |  of f16 | refined |   compute |  peak RSS | prefill t/s | decode t/s | KL mean |  median | 99.9 % | last 64 | 2nd half | same top-1 |    PPL |", lines[0])
	assert.Equal(t, "| hex:balanced | 10.5 MiB |  3.73 |  23.3 % |     205 | 100.0 MiB | 264.0 MiB |         333 |       44.0 | 0.00780 | 0.00210 |  0.750 |  0.0123 |   0.0100 |     96.6 % | 20.200 |", lines[3])
	for _, line := range lines[1:4] {
		assert.Len(t, line, len(lines[0]))
	}
}

func TestRefused(t *testing.T) {
	assert.ErrorContains(t, Write(&bytes.Buffer{}, "xml", nil), "use md, csv, json, jsonl")
	assert.Error(t, Write(&bytes.Buffer{}, "json", []Row{{PPL: math.NaN()}}))
}
