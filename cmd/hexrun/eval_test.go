package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/corpus"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/report"
	"github.com/hexkv/hexkv/hexkv"
)

func evalRows(t *testing.T, args ...string) (rows []report.EvalRow, out, stderr string) {
	t.Helper()
	out, stderr, code := hexrun(t, "", append([]string{"eval", "kld", "-o", "json"}, args...)...)
	require.Equal(t, exitOK, code, stderr)
	require.NoError(t, json.Unmarshal([]byte(out), &rows))
	return rows, out, stderr
}

func TestEvalKLD(t *testing.T) {
	needModel(t)
	grid := temp(t, "grid.txt", "# the first\nhex:off\n")
	more := temp(t, "more.txt", "small ones = hex:tiny:recent=40\n")
	args := []string{"-c", "256", "--windows", "2", "--start", "100", "--step", "30", "--caches", "q4_0", "--grid", grid, "--grid", more}
	rows, want, stderr := evalRows(t, append(args, "--lockstep", "2")...)
	assert.Empty(t, stderr, "no bar without a terminal")
	require.Len(t, rows, 4)
	assert.Equal(t, []string{"floor", "q4_0", "hex:off", "hex:tiny:recent=40"}, []string{rows[0].Cache, rows[1].Cache, rows[2].Cache, rows[3].Cache})
	assert.Equal(t, []string{"f16 (steps of 90)", "small ones"}, []string{rows[0].Label, rows[3].Label})
	floor, off := rows[0], rows[2]
	for _, r := range rows {
		assert.Equal(t, 2, r.Windows)
		assert.Equal(t, 256, r.NCtx)
		assert.Equal(t, 512, r.NTokens)
		assert.InDelta(t, 16*float64(r.KVBytes)/float64(floor.KVBytes), r.BitsPerElement, 0.01, r.Cache)
		assert.InDelta(t, off.PPL, r.PPL, 0.1*off.PPL, r.Cache)
		require.NotNil(t, r.KLDMeanLo, r.Cache)
		require.NotNil(t, r.KLDSecondHalfHi, r.Cache)
		assert.Nil(t, r.KLDLast64Lo, "two blocks")
		assert.LessOrEqual(t, *r.KLDMeanLo, r.KLDMean)
		assert.GreaterOrEqual(t, *r.KLDMeanHi, r.KLDMean)
		assert.LessOrEqual(t, *r.PPLLo, r.PPL)
		assert.GreaterOrEqual(t, *r.PPLHi, r.PPL)
		if r.Cache != "hex:off" {
			assert.Positive(t, r.KLDMean, r.Cache)
			assert.Less(t, r.KLDMean, 0.3, r.Cache)
			assert.Greater(t, r.SameTop1, 0.7, r.Cache)
		}
	}
	assert.Zero(t, off.KLDMean, "to the last bit")
	assert.Zero(t, off.KLDP999)
	assert.Zero(t, *off.KLDMeanHi)
	assert.Equal(t, 1.0, off.SameTop1)
	assert.Less(t, floor.KLDMean, 0.02)
	assert.Less(t, floor.KLDMean, rows[1].KLDMean)
	assert.Positive(t, rows[3].RefinedCells)
	assert.Less(t, rows[3].RefinedCells, 256)
	assert.Zero(t, floor.RefinedCells)

	// Interrupted after the first window, and resumed with other caches side by side, it gives the same to the last bit.
	path := filepath.Join(t.TempDir(), "records")
	resume := append(args, "--resume", path, "-o", "json")
	c := command(append([]string{"eval", "kld", "--lockstep", "2"}, resume...)...)
	var errs strings.Builder
	c.Stderr = &errs
	require.NoError(t, c.Start())
	lines := func() int {
		data, _ := os.ReadFile(path)
		return strings.Count(string(data), "\n")
	}
	for stop := time.Now().Add(2 * time.Minute); lines() == 0 && time.Now().Before(stop); {
		time.Sleep(20 * time.Millisecond)
	}
	require.NoError(t, c.Process.Signal(os.Interrupt))
	assert.Equal(t, exitInterrupted, wait(t, c), errs.String())
	assert.Regexp(t, `^note: [2-6] of 8 windows are in \S*records \(of all caches\); the same command goes on from there\ninterrupted\n$`, errs.String())
	kept := lines()
	require.Positive(t, kept)
	require.Less(t, kept, 8)

	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(`{"kind":"hexrun eval kld","key":{"program":"bro`)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, got, _ := evalRows(t, resume...)
	assert.Equal(t, want, got)
	assert.Equal(t, 8, lines())

	start := time.Now()
	_, got, _ = evalRows(t, resume...)
	assert.Equal(t, want, got)
	assert.Less(t, time.Since(start), 5*time.Second, "all of it is in the records")

	out, _, code := hexrun(t, "", append([]string{"eval", "kld"}, append(resume, "-o", "md")...)...)
	require.Equal(t, exitOK, code)
	assert.Contains(t, out, "2 windows of 256 tokens of Newton's Opticks, KL divergence from f16 in nats (steps of 30 tokens), 95 % intervals; the first row is the floor\n\n| cache ")
	assert.Contains(t, out, "\n| small ones ")
	out, _, code = hexrun(t, "", append([]string{"eval", "kld"}, append(resume, "-o", "csv")...)...)
	require.Equal(t, exitOK, code)
	records, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	require.NoError(t, err)
	assert.Len(t, records, 5)
	out, _, code = hexrun(t, "", append([]string{"eval", "kld"}, append(resume, "-o", "jsonl")...)...)
	require.Equal(t, exitOK, code)
	assert.Equal(t, 4, strings.Count(out, "\n"))
}

// Records of another mode or model are not taken.
func TestEvalResumesItsOwn(t *testing.T) {
	needModel(t)
	path := filepath.Join(t.TempDir(), "records")
	kept := func(t *testing.T, args ...string) int {
		t.Helper()
		_, _, _ = evalRows(t, append(args, "-c", "128", "--step", "128", "--caches", "hex:off", "--resume", path)...)
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		return strings.Count(string(data), "\n")
	}
	require.Equal(t, 2, kept(t))
	require.Equal(t, 2, kept(t), "all of it is there")
	t.Setenv("HEXKV_COARSE", "0")
	require.Equal(t, 4, kept(t))
	require.Equal(t, 6, kept(t, "-ngl", "0"))
	require.Equal(t, 6, kept(t, "-ngl", "0"))
}

// One window from the beginning is what compare reads, so the numbers are the same.
func TestEvalKLDIsCompare(t *testing.T) {
	needModel(t)
	out, stderr, code := hexrun(t, "", "compare", "-c", "256", "--caches", "q4_0", "-o", "json")
	require.Equal(t, exitOK, code, stderr)
	var want []report.Row
	require.NoError(t, json.Unmarshal([]byte(out), &want))
	rows, _, _ := evalRows(t, "-c", "256", "--caches", "q4_0")
	require.Len(t, rows, 2)
	got, w := rows[1], want[0]
	assert.Equal(t, report.Row{Cache: "q4_0", NCtx: got.NCtx, NTokens: got.NTokens, KVBytes: got.KVBytes, BitsPerElement: got.BitsPerElement,
		RefinedCells: got.RefinedCells, ComputeBytes: w.ComputeBytes, RSSPeakBytes: w.RSSPeakBytes, PPTPS: w.PPTPS, TGTPS: w.TGTPS,
		KLDMean: got.KLDMean, KLDMedian: got.KLDMedian, KLDP999: got.KLDP999, KLDLast64: got.KLDLast64, KLDSecondHalf: got.KLDSecondHalf,
		SameTop1: got.SameTop1, PPL: got.PPL}, w)
}

func TestWindows(t *testing.T) {
	m, err := hexkv.OpenModel(context.Background(), needModel(t), nil)
	require.NoError(t, err)
	defer m.Close()
	head, err := beginning(m)
	require.NoError(t, err)
	tokens, err := m.Tokenize(corpus.Text, hexkv.TokenizeOptions{})
	require.NoError(t, err)
	windows, err := cutWindows(m, newEvalText("opticks", corpus.Text), 17, 300, 3)
	require.NoError(t, err)
	require.Len(t, windows, 3)
	var joined []hexkv.TokenID
	for i, w := range windows {
		assert.Equal(t, 17+i*(300-len(head)), w.first)
		assert.Len(t, w.tokens, 300)
		assert.Equal(t, head, w.tokens[:len(head)])
		joined = append(joined, w.tokens[len(head):]...)
	}
	assert.Equal(t, tokens[17:17+len(joined)], joined)
	_, err = cutWindows(m, newEvalText("opticks", corpus.Text), len(tokens)-100, 300, 1)
	assert.ErrorContains(t, err, "too few for 1 window of 300 from token")
}

func TestFloorSetting(t *testing.T) {
	for step := range 4096 {
		step++
		other := floorSetting(step).step
		assert.NotEqual(t, step >= otherKernel, other >= otherKernel, step)
		if step < otherKernel {
			assert.Zero(t, other%step)
		}
	}
	assert.Equal(t, "f16 (steps of 32)", floorSetting(64).label)
	assert.Equal(t, "f16 (steps of 43)", floorSetting(128).label)
	assert.Equal(t, "f16 (steps of 64)", floorSetting(1).label)
}

func TestEvalRefused(t *testing.T) {
	needModel(t)
	grid := temp(t, "grid.txt", "f16\nfoo\n")
	short := temp(t, "short.txt", strings.Repeat("word ", 300))
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"eval", exitUsage, "use hexrun eval kld"},
		{"eval dance", exitUsage, `"dance" is not understood; use hexrun eval kld, greedy, recall (see hexrun eval --help)`},
		{"eval dance --step 3", exitUsage, `"dance" is not understood`},
		{"eval kld dance", exitUsage, "see hexrun eval kld --help"},
		{"eval kld --nope", exitUsage, "unknown flag --nope; see hexrun eval kld --help"},
		{"eval kld --step 0", exitUsage, "--step 0: use 1 to 4096 tokens"},
		{"eval kld --windows 0", exitUsage, "--windows 0: use 1 or more"},
		{"eval kld --start -1", exitUsage, "--start -1: use 0 or more"},
		{"eval kld --lockstep 0", exitUsage, "--lockstep 0: use 1 or more"},
		{"eval kld -c -1", exitUsage, "-c -1: use 1 or more tokens"},
		{"eval kld -c 100", exitUsage, "-c 100: windows of so few tokens say little; use 128"},
		{"eval kld -c 9000", exitUsage, "-c 9000: the model was trained with 8,192 tokens"},
		{"eval kld --caches ,", exitUsage, "name no cache; use"},
		{"eval kld --caches q8_0,foo", exitUsage, "'foo' is unknown"},
		{"eval kld --caches q8_0 --caches q8_0", exitUsage, "q8_0 is named twice"},
		{"eval kld --grid " + grid, exitUsage, "grid.txt line 2: "},
		{"eval kld --grid none.txt", exitError, "none.txt does not exist"},
		{"eval kld -f none.txt", exitError, "none.txt does not exist"},
		{"eval kld -f " + short + " -f " + short, exitUsage, "is the same text; name each text once"},
		{"eval kld -c 256 --windows 2 -f " + short, exitUsage, "too few for 2 windows of 256 from token 0 on; use fewer"},
		{"eval kld -c 256 --resume " + short, exitError, "is no file of hexrun eval kld; name another file"},
		{"eval kld -o xml", exitUsage, "use md, csv, json, jsonl"},
		{"eval kld -m " + short, exitError, "is not a GGUF file"},
	} {
		out, stderr, code := hexrun(t, "", strings.Fields(c.args)...)
		assert.Equal(t, c.code, code, "%s: %s", c.args, stderr)
		assert.Empty(t, out)
		assert.True(t, strings.HasPrefix(stderr, "hexrun: "), stderr)
		assert.Contains(t, stderr, c.want)
		assert.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	}
}
