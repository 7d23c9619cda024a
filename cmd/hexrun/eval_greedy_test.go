package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/report"
)

func TestEvalGreedy(t *testing.T) {
	needModel(t)
	records := filepath.Join(t.TempDir(), "records")
	args := strings.Fields("eval greedy --prompts 3 --prompt-tokens 40 -n 30 --caches hex:off,q4_0 -o json --resume " + records)
	out, stderr, code := hexrun(t, "", args...)
	require.Equal(t, exitOK, code, stderr)
	var rows []report.GreedyRow
	require.NoError(t, json.Unmarshal([]byte(out), &rows))
	require.Len(t, rows, 4)
	for i, cache := range []string{"f16", "floor", "hex:off", "q4_0"} {
		r := rows[i]
		assert.Equal(t, cache, r.Cache)
		assert.Equal(t, 3, r.Prompts)
		assert.LessOrEqual(t, r.PartedLow, r.PartedMedian)
		assert.LessOrEqual(t, r.PartedMedian, r.PartedHigh)
		assert.LessOrEqual(t, r.LoopsOfOwn, r.Loops)
		if cache == "f16" || cache == "hex:off" {
			assert.Equal(t, 3, r.Same, cache)
			assert.Equal(t, 30, r.PartedLow, cache)
		}
	}
	assert.Less(t, rows[3].Same, 3, "q4_0 parts")

	kept, err := os.ReadFile(records)
	require.NoError(t, err)
	require.Equal(t, 12, strings.Count(string(kept), "\n"))
	require.NoError(t, os.WriteFile(records, kept[:len(kept)-9], 0o666)) // interrupted while it wrote the last one
	again, stderr, code := hexrun(t, "", args...)
	require.Equal(t, exitOK, code, stderr)
	assert.Equal(t, out, again)
	table, stderr, code := hexrun(t, "", append(args, "-o", "md")...)
	require.Equal(t, exitOK, code, stderr)
	assert.Contains(t, table, "3 passages of 40 tokens of Newton's Opticks, continued greedily by 30 tokens")
}

func TestEvalRecall(t *testing.T) {
	needModel(t)
	for _, kind := range []string{"needle", "multikey"} {
		out, stderr, code := hexrun(t, "", strings.Fields("eval recall --items 4 --length 400 --caches hex:off,hex:compact -o json --kind "+kind)...)
		require.Equal(t, exitOK, code, stderr)
		var rows []report.RecallRow
		require.NoError(t, json.Unmarshal([]byte(out), &rows))
		require.Len(t, rows, 4)
		for i, cache := range []string{"f16", "floor", "hex:off", "hex:compact"} {
			r := rows[i]
			assert.Equal(t, cache, r.Cache)
			assert.Equal(t, 4, r.Items)
			assert.Equal(t, 400, r.Length)
			require.NotNil(t, r.MarginLo)
			assert.LessOrEqual(t, *r.MarginLo, r.Margin)
			if cache == "f16" || cache == "hex:off" {
				assert.Zero(t, r.Difference, cache)
			}
		}
		assert.NotZero(t, rows[3].Difference)
		assert.Greater(t, rows[0].Right, 1, "%s: the model finds facts in 400 tokens", kind)
	}
	file := temp(t, "ruler.jsonl", `{"input": "The special magic word for a is: apple. The special magic word for b is: pear. The special magic word for a is", "outputs": ["apple"]}`+"\n")
	out, stderr, code := hexrun(t, "", strings.Fields("eval recall --caches q8_0 -f "+file)...)
	require.Equal(t, exitOK, code, stderr)
	assert.Contains(t, out, "1 question (ruler.jsonl)")
	assert.Contains(t, out, "| q8_0 ")
}

func TestEvalQuestionsThatCannotWork(t *testing.T) {
	needModel(t)
	short := temp(t, "short.txt", "Too short.")
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"eval greedy --prompts 0", exitUsage, "--prompts 0: use 1 or more"},
		{"eval greedy --prompt-tokens 0", exitUsage, "--prompt-tokens 0: use 1 to 1048576"},
		{"eval greedy -n 0", exitUsage, "--predict 0: use 1 to 1048576 tokens"},
		{"eval greedy -f " + short, exitUsage, "too few for 50 passages of 128"},
		{"eval greedy --resume " + short, exitError, "is not from hexrun eval greedy; delete the line, or name another file"},
		{"eval greedy -f " + short + " -f nowhere.txt", exitError, "nowhere.txt"},
		{"eval recall --items 0", exitUsage, "--items 0: use 1 or more"},
		{"eval recall --step 0", exitUsage, "--step 0: use 1 to 4096 tokens"},
		{"eval recall --kind haystack", exitUsage, "--kind haystack: use needle or multikey"},
		{"eval recall --kind needle -f " + short, exitUsage, "leave it or -f out"},
		{"eval recall --length 50", exitUsage, "--length 50: too short for the facts and the question"},
		{"eval recall --length 100000", exitUsage, "the model was trained with 8,192"},
		{"eval recall -f " + short, exitError, "line 1 is no JSON object"},
		{"eval recall --caches hex:huge", exitUsage, "'huge' is unknown"},
	} {
		out, stderr, code := hexrun(t, "", strings.Fields(c.args)...)
		assert.Equal(t, c.code, code, "%s: %s", c.args, stderr)
		assert.Empty(t, out)
		assert.Contains(t, stderr, c.want, c.args)
		assert.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	}
}
