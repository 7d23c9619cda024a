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
	"github.com/hexkv/hexkv/hexkv"
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
		assert.Equal(t, rows[0].Prompts-rows[0].Loops, r.Free, cache)
		assert.Equal(t, 30, r.Tokens, "too short for a loop to be cut")
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

func TestParting(t *testing.T) {
	for _, c := range []struct {
		a, b []hexkv.TokenID
		at   int
		same bool
	}{
		{[]hexkv.TokenID{1, 2, 3}, []hexkv.TokenID{1, 2, 3}, 3, true},
		{[]hexkv.TokenID{1, 2, 3}, []hexkv.TokenID{1, 4, 3}, 1, false},
		{[]hexkv.TokenID{1, 2, 3}, []hexkv.TokenID{1, 2}, 2, true}, // one was cut in its loop
		{nil, []hexkv.TokenID{1}, 0, true},
	} {
		at, same := parting(c.a, c.b)
		assert.Equal(t, c.at, at)
		assert.Equal(t, c.same, same)
	}
}

// Facts keep their order and lie evenly; every question begins at another place of the filler.
func TestHide(t *testing.T) {
	filler := make([]hexkv.TokenID, 100)
	for i := range filler {
		filler[i] = hexkv.TokenID(i)
	}
	where := func(all []hexkv.TokenID) (at []int) {
		for i, token := range all {
			if token >= 1000 {
				at = append(at, i)
			}
		}
		return at
	}
	begin, fact := []hexkv.TokenID{500}, []hexkv.TokenID{1000, 1001}
	for n, depth := range []int{1 + 17/8, 1 + 17*3/8, 1 + 17*5/8, 1 + 17*7/8} {
		all := hide(begin, [][]hexkv.TokenID{fact}, filler, 20, n, 4)
		require.Len(t, all, 20)
		assert.Equal(t, hexkv.TokenID(500), all[0])
		assert.Equal(t, hexkv.TokenID(25*n), all[1])
		assert.Equal(t, []int{depth, depth + 1}, where(all))
	}
	all := hide(begin, [][]hexkv.TokenID{{1000}, {1001}, {1002}}, filler, 20, 0, 1)
	require.Len(t, all, 20)
	assert.Equal(t, []int{5, 10, 15}, where(all))
	assert.Nil(t, hide(begin, [][]hexkv.TokenID{fact}, filler, 3, 0, 1), "no room for filler")
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
			assert.Less(t, *r.MarginLo, r.Margin)
			assert.Less(t, r.Margin, *r.MarginHi)
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

// noTail is a cache that cannot drop a tail.
type noTail struct{}

func (noTail) Truncate(int) (int, error) { return 0, nil }

type tail struct{}

func (tail) Truncate(n int) (int, error) { return n, nil }

// A second candidate is not judged without the text.
func TestKeepOnly(t *testing.T) {
	assert.NoError(t, keepOnly(tail{}, 40))
	assert.EqualError(t, keepOnly(noTail{}, 40), "this model's cache cannot drop a candidate's tokens, 0 of 40 were kept: it is recurrent, or has a sliding window that the text has passed; "+
		"use a model with full attention, or a text that is shorter than the window (--length)")
}

// Generated questions are told apart by what they say.
func TestRecallKeyOfQuestions(t *testing.T) {
	hash := func(kind string, count int) string {
		var r recallRun
		_, _, err := r.questions(&env{}, kind, "", count)
		require.NoError(t, err)
		return r.key.Questions
	}
	assert.Len(t, hash("needle", 3), 64)
	assert.Equal(t, hash("needle", 3), hash("needle", 3))
	assert.NotEqual(t, hash("needle", 3), hash("multikey", 3))
	assert.NotEqual(t, hash("needle", 3), hash("needle", 4))
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
		{"eval greedy --resume " + short, exitError, "is no file of hexrun eval greedy; name another file"},
		{"eval greedy -f " + short + " -f nowhere.txt", exitError, "nowhere.txt"},
		{"eval recall --items 0", exitUsage, "--items 0: use 1 or more"},
		{"eval recall --step 0", exitUsage, "--step 0: use 1 to 4096 tokens"},
		{"eval recall --kind haystack", exitUsage, "--kind haystack: use needle or multikey"},
		{"eval recall --kind needle -f " + short, exitUsage, "leave it or -f out"},
		{"eval recall --length 50 -f " + short, exitUsage, "--length 50 is for generated questions"},
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
