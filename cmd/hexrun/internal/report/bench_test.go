package report

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var benchKeys = strings.Fields(`model cache n_prompt n_gen n_depth n_ctx n_batch n_ubatch n_threads kv_bytes bits_per_element rounds
	tps tps_median tps_f16 ratio_to_f16`)

var benchRows = []BenchRow{
	{Model: "m.gguf", Cache: "f16", NPrompt: 512, NDepth: 2048, NCtx: 2560, Batch: 2048, UBatch: 512, Threads: 2, KVBytes: 5 << 20,
		BitsPerElement: 16, Rounds: 3, TPS: 300, TPSMedian: 290.5, TPSF16: ptr(300), RatioToF16: ptr(1)},
	{Model: "m.gguf", Cache: "hex:tiny", NGen: 32, NCtx: 256, Batch: 2048, UBatch: 512, KVBytes: 1 << 20, BitsPerElement: 2.8, Rounds: 1,
		TPS: 45.67, TPSMedian: 45.67},
}

func TestBenchFormats(t *testing.T) {
	write := func(format string) string {
		var b bytes.Buffer
		require.NoError(t, WriteBench(&b, format, benchRows))
		return b.String()
	}
	var got []BenchRow
	require.NoError(t, json.Unmarshal([]byte(write("json")), &got))
	assert.Equal(t, benchRows, got)
	lines := strings.Split(strings.TrimSpace(write("jsonl")), "\n")
	require.Len(t, lines, 2)
	for _, line := range lines {
		assert.Equal(t, benchKeys, order(t, line))
	}
	checkColumns(t, write("csv"), benchKeys, benchRows)

	md := strings.Split(write("md"), "\n")
	assert.Equal(t, "| f16      |  5.0 MiB | 16.00 |       2 | pp512 @ d2048 |  300 |    290 |  1.00x |", md[2])
	assert.Equal(t, "| hex:tiny |  1.0 MiB |  2.80 |   cores |          tg32 | 45.7 |   45.7 |      - |", md[3])
}
