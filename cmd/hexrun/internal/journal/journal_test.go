package journal

import (
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/kld"
)

func some(seed uint64) (Key, Result) {
	r := rand.New(rand.NewPCG(seed, 1))
	rows := make([]kld.Row, 20)
	for i := range rows {
		rows[i] = kld.Row{KL: r.ExpFloat64() * 1e-7, SameTop: r.IntN(2) == 1, NLL: r.ExpFloat64() / 3}
	}
	rows[19].NLL = math.NaN()
	key := Key{Program: "1 avx2", Model: "m <1>.gguf", ModelBytes: 1 << 40, Text: "abc", First: 5, Tokens: 20, Step: 64, Cache: "hex:tiny"}
	key.First += int(seed)
	return key, Result{NCtx: 256, KVBytes: 12345, BitsPerElement: 3.8125, RefinedCells: 17.0 / 3, Rows: rows}
}

// same compares results to the last bit; NaN equals NaN.
func same(t *testing.T, want, got Result) {
	t.Helper()
	require.Len(t, got.Rows, len(want.Rows))
	for i := range want.Rows {
		require.Equal(t, math.Float64bits(want.Rows[i].KL), math.Float64bits(got.Rows[i].KL))
		require.Equal(t, want.Rows[i].SameTop, got.Rows[i].SameTop)
		if !math.IsNaN(want.Rows[i].NLL) || !math.IsNaN(got.Rows[i].NLL) {
			require.Equal(t, math.Float64bits(want.Rows[i].NLL), math.Float64bits(got.Rows[i].NLL))
		}
	}
	want.Rows, got.Rows = nil, nil
	require.Equal(t, want, got)
}

func open(t *testing.T, path string) *Journal {
	t.Helper()
	j, err := Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { j.Close() })
	return j
}

func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := open(t, path)
	var keys []Key
	var results []Result
	for seed := range uint64(3) {
		k, r := some(seed)
		keys, results = append(keys, k), append(results, r)
		require.NoError(t, j.Add(k, r))
	}
	check := func(j *Journal, n int) {
		t.Helper()
		for i, k := range keys {
			got, ok := j.Find(k)
			require.Equal(t, i < n, ok)
			if ok {
				same(t, results[i], got)
			}
		}
	}
	check(j, 3)
	check(open(t, path), 3)
	other := keys[0]
	other.Step = 32
	_, ok := j.Find(other)
	assert.False(t, ok, "another step is another question")

	// Cut anywhere in its last line, a journal has the lines before, and goes on.
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	lines := strings.SplitAfter(string(data), "\n")
	two := len(lines[0]) + len(lines[1])
	for _, cut := range []int{0, 1, len(marker), len(lines[2]) / 2, len(lines[2]) - 1} {
		require.NoError(t, os.WriteFile(path, data[:two+cut], 0o600))
		j := open(t, path)
		check(j, 2)
		require.NoError(t, j.Add(keys[2], results[2]))
		again, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, data, again)
	}

	memory := New()
	require.NoError(t, memory.Add(keys[0], results[0]))
	check(memory, 1)
	require.NoError(t, memory.Close())
}

// What is no journal is refused, and not changed.
func TestRefused(t *testing.T) {
	k, r := some(1)
	good, err := format(k, r)
	require.NoError(t, err)
	line := string(good)
	for _, c := range []struct{ text, want string }{
		{"my thesis", "is no journal of hexrun eval kld"},
		{"\n", "is no journal"},
		{`{"cache":"f16"}` + "\n" + line, "is no journal"},
		{line + "my thesis", "line 2 of the journal"},
		{line + "\n" + line, "line 2 of the journal"},
		{line[:100] + "\n" + line, "is damaged (it ends early)"},
		{strings.Replace(line, `"tokens":20`, `"tokens":21`, 1), "20, 20 and 19 values for 21 tokens"},
		{strings.Replace(line, `"kl":[`, `"kl":["x",`, 1), "is damaged"},
		{strings.Replace(line, `"kl":[`, `"more":1,"kl":[`, 1), "is damaged"},
		{strings.Replace(line, `"same_top":"`, `"same_top":"2`, 1), "is damaged"},
		{strings.Replace(line, "\n", "{}\n", 1), "more than one object"},
	} {
		path := filepath.Join(t.TempDir(), "journal")
		require.NoError(t, os.WriteFile(path, []byte(c.text), 0o600))
		_, err := Open(path)
		require.ErrorContains(t, err, c.want)
		assert.Contains(t, err.Error(), ";", "no remedy")
		assert.Contains(t, err.Error(), path)
		after, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, c.text, string(after))
	}
	_, err = Open(t.TempDir())
	assert.ErrorContains(t, err, "is a directory); name a file that can be written")
	_, err = Open(filepath.Join(t.TempDir(), "none", "journal"))
	assert.ErrorContains(t, err, "no such file or directory); name a file")
	r.Rows[0].KL = math.NaN()
	j := open(t, filepath.Join(t.TempDir(), "journal"))
	assert.Error(t, j.Add(k, r), "no number")
}

// Whatever the file, it is refused with a sentence, or its results are those of the same journal written anew.
func FuzzParse(f *testing.F) {
	for seed := range uint64(2) {
		k, r := some(seed)
		k.Tokens, r.Rows = 2, r.Rows[18:]
		line, err := format(k, r)
		require.NoError(f, err)
		f.Add(line)
		f.Add(append(line, line[:len(line)/2]...))
	}
	f.Add([]byte(marker + "}\n"))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, data []byte) {
		results, whole, err := Parse("file", data)
		if err != nil {
			require.Contains(t, err.Error(), "file")
			require.Contains(t, err.Error(), "; ")
			return
		}
		require.LessOrEqual(t, whole, len(data))
		var again []byte
		for k, r := range results {
			line, err := format(k, r)
			require.NoError(t, err)
			again = append(again, line...)
		}
		second, all, err := Parse("file", again)
		require.NoError(t, err)
		require.Equal(t, len(again), all)
		require.Len(t, second, len(results))
		for k, r := range results {
			same(t, r, second[k])
		}
	})
}
