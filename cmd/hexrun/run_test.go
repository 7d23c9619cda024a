package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hexkv/hexkv/hexkv"
)

func TestRun(t *testing.T) {
	needModel(t)
	greedy := []string{"run", "--temp", "0", "-n", "8", "-c", "512"}
	flags := func(more ...string) []string { return append(greedy[:len(greedy):len(greedy)], more...) }
	const question = "Name three colours."

	reply, stats, code := hexrun(t, "", flags("-p", question)...)
	require.Equal(t, exitOK, code, stats)
	assert.NotEmpty(t, strings.TrimSpace(reply))
	for _, want := range []string{"prompt ", "reply    8 tokens, ", "tokens/s", "bits per element (f16 ", "base K "} {
		assert.Contains(t, stats, want)
	}
	// The same prompt from elsewhere gives the same reply.
	again, _, code := hexrun(t, question+"\n", flags()...)
	assert.Equal(t, exitOK, code)
	assert.Equal(t, reply, again)
	again, _, code = hexrun(t, "", flags("-f", temp(t, "prompt.txt", question))...)
	assert.Equal(t, exitOK, code)
	assert.Equal(t, reply, again)
	again, _, _ = hexrun(t, question, flags("-f", "-", "-sys", "You speak French only.")...)
	assert.NotEqual(t, reply, again)
	// -p comes before standard input or -f; -e reads escapes.
	joined, _, code := hexrun(t, "", flags("-e", "-p", `Repeat:\n\nblue`)...)
	assert.Equal(t, exitOK, code)
	again, stats, code = hexrun(t, "blue\n", flags("-p", "Repeat:")...)
	assert.Equal(t, exitOK, code)
	assert.Equal(t, joined, again)
	assert.Contains(t, stats, "note: 4 characters of standard input follow the prompt")
	again, _, code = hexrun(t, "no part of it", flags("-p", "Repeat:", "-f", temp(t, "more.txt", "blue"))...)
	assert.Equal(t, exitOK, code)
	assert.Equal(t, joined, again)
	// A text goes on; a grammar binds.
	again, _, code = hexrun(t, "", flags("--raw", "-p", "1, 2, 3, 4, 5, 6,")...)
	assert.Equal(t, exitOK, code)
	assert.Contains(t, again, "7, 8")
	again, _, code = hexrun(t, "", flags("-p", question, "--grammar-file", temp(t, "g.gbnf", `root ::= "yes" | "no"`))...)
	assert.Equal(t, exitOK, code)
	assert.Contains(t, []string{"yes\n", "no\n"}, again)
}

func TestRunOnHEX(t *testing.T) {
	needModel(t)
	reply, stats, code := hexrun(t, "", "run", "--hex", "balanced", "--hex-recent", "64", "-c", "512", "-ub", "32", "-n", "4", "-p", "Hi.")
	require.Equal(t, exitOK, code, stats)
	assert.NotEmpty(t, reply)
	assert.Contains(t, stats, "heavy hitters")

	// What is allowed, and hardly meant.
	_, stats, code = hexrun(t, "", "run", "--hex", "balanced", "--hex-recent", "600", "-c", "512", "-n", "1", "-p", "Hi.")
	require.Equal(t, exitOK, code, stats)
	assert.Contains(t, stats, "note: --hex-recent 600 covers the whole context of 512 tokens")
	_, stats, code = hexrun(t, "", "run", "--hex", "balanced", "-c", "8448", "-n", "1", "-p", "Hi.")
	require.Equal(t, exitOK, code, stats)
	assert.Contains(t, stats, "note: the model was trained with 8,192 tokens;")
}

// Hostile inputs: one sentence with a remedy each, and a documented exit code.
func TestHostileInputs(t *testing.T) {
	model := needModel(t)
	data, err := os.ReadFile(model)
	require.NoError(t, err)
	dir := t.TempDir()
	run := func(more ...string) []string { return append([]string{"run", "-n", "4", "-p", "hi"}, more...) }
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"truncated", run("-m", temp(t, "cut.gguf", string(data[:len(data)/2]))), exitError, "truncated"},
		{"not a GGUF", run("-m", temp(t, "text.gguf", "this is no model")), exitError, "is not a GGUF file"},
		{"directory", run("-m", dir), exitError, "is a directory"},
		{"zero bytes", run("-m", temp(t, "zero.gguf", "")), exitError, "is empty"},
		{"no such file", run("-m", filepath.Join(dir, "none.gguf")), exitError, "no such file"},
		{"negative context", run("-c", "-1"), exitUsage, "-c -1 is out of range"},
		{"context larger than memory", run("-c", "60000000"), exitError, "needs about"},
		{"unknown preset", run("--hex", "gigantic"), exitUsage, "use one of off"},
		{"contradictory flags", run("--hex", "balanced", "-ctk", "q8_0"), exitUsage, "q8_0"},
		{"overrides without a preset", run("--hex-heavy", "0.1"), exitUsage, "HEX is off"},
		{"prompt longer than the context", []string{"run", "-c", "256", "-p", strings.Repeat("word ", 500)}, exitError, "256"},
		{"full context", []string{"run", "-c", "256", "--raw", "--temp", "0", "-p", "1, 2, 3, 4, 5, 6,"}, exitError, "the context of 256 tokens is full"},
		{"invalid UTF-8", []string{"run", "-p", "bad \xff"}, exitError, "not valid UTF-8"},
		{"invalid UTF-8 in a file", []string{"run", "-f", temp(t, "bad.txt", "bad \xff")}, exitError, "not valid UTF-8"},
		{"no such prompt file", []string{"run", "-f", filepath.Join(dir, "none.txt")}, exitError, "does not exist"},
		{"directory as prompt file", []string{"run", "-f", dir}, exitError, "is a directory"},
		{"empty prompt", []string{"run", "-p", ""}, exitUsage, "the prompt is empty"},
		{"text too short to compare", []string{"compare", "-f", temp(t, "short.txt", "word")}, exitUsage, "too few"},
		{"context too short to compare", []string{"compare", "-c", "16"}, exitUsage, "at least -c 128"},
		{"unknown cache", []string{"compare", "--caches", "f16,foo"}, exitUsage, "'foo' is unknown"},
		{"no cache", []string{"compare", "--caches", ","}, exitUsage, "names no cache"},
		{"unknown format", []string{"compare", "-o", "xml"}, exitUsage, "use md, csv, json, jsonl"},
		{"hidden command", []string{measureName}, exitUsage, "use hexrun compare"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, stderr, code := hexrun(t, "", c.args...)
			assert.Equal(t, c.code, code, stderr)
			lines := strings.Split(strings.TrimSpace(stderr), "\n")
			last := lines[len(lines)-1]
			assert.True(t, strings.HasPrefix(last, "hexrun: "), last)
			assert.Contains(t, last, c.want)
			assert.Contains(t, last, ";", "no remedy")
		})
	}
}

func TestBadGrammar(t *testing.T) {
	needModel(t)
	_, stderr, code := hexrun(t, "", "run", "-p", "hi", "--grammar", "root")
	assert.Equal(t, exitError, code)
	assert.Contains(t, stderr, "hexrun: the grammar is wrong")
}

func TestContextZeroIsAsTrained(t *testing.T) {
	needModel(t)
	_, stderr, code := hexrun(t, "", "run", "-c", "0", "-n", "1", "-p", "hi")
	assert.Equal(t, exitOK, code)
	assert.Contains(t, stderr, "note: a context of 0 means as trained: 8,192 tokens")
}

func TestContextIsRounded(t *testing.T) {
	needModel(t)
	_, stderr, code := hexrun(t, "", "run", "-c", "16", "-n", "1", "--raw", "-p", "hi", "--no-mmap", "-fa", "on")
	assert.Equal(t, exitOK, code)
	assert.Contains(t, stderr, "note: a context of 16 is rounded up to 256 tokens\n")
	assert.Contains(t, stderr, "prompt   1 token, timed with the reply\n")
}

func TestNoModel(t *testing.T) {
	c := command("run", "-p", "hi")
	c.Env = append(c.Env, "HEXRUN_MODEL=")
	out, _ := c.CombinedOutput()
	assert.Equal(t, exitUsage, c.ProcessState.ExitCode())
	assert.Contains(t, string(out), "run make model")
}

// Ctrl-C in a long prompt.
func TestCancelledPrefill(t *testing.T) {
	needModel(t)
	c := command("run", "-c", "8192", "-f", temp(t, "long.txt", strings.Repeat("A long prompt takes its time. ", 900)), "-v")
	r, err := c.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	// With -v the log tells when the context is there; prefill takes many seconds from then on.
	log := watch(r, "graph", func() { time.AfterFunc(time.Second, func() { c.Process.Signal(os.Interrupt) }) })
	assert.Equal(t, exitInterrupted, wait(t, c), log.String())
	assert.True(t, strings.HasSuffix(log.String(), "interrupted\n"), log.String())
}

func TestInfo(t *testing.T) {
	needModel(t)
	out, stderr, code := hexrun(t, "", "info")
	require.Equal(t, exitOK, code, stderr)
	assert.Contains(t, out, "| f16 ")
	assert.Contains(t, out, "32,768*")

	out, stderr, code = hexrun(t, "", "info", "-o", "json")
	require.Equal(t, exitOK, code, stderr)
	var got struct {
		Model modelFacts
		Plan  []plan
	}
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	assert.Equal(t, 49152, got.Model.Vocab)
	require.Len(t, got.Plan, 5)
	for i, n := range []int{512, 2048, 4096, 8192, 32768} {
		p := got.Plan[i]
		assert.Equal(t, n, p.NCtx)
		assert.Equal(t, "f16", p.Caches[0].Cache)
		f16 := p.Caches[0].KVBytes
		assert.Equal(t, uint64(n*30*3*64*2*2), f16)
		for _, c := range p.Caches {
			assert.InDelta(t, float64(c.KVBytes)/float64(f16)*16, c.BitsPerElement, 0.01, c.Cache)
			switch c.Cache {
			case "hex:balanced":
				assert.LessOrEqual(t, float64(c.KVBytes), 0.30*float64(f16))
			case "hex:tiny":
				assert.LessOrEqual(t, float64(c.KVBytes), 0.22*float64(f16))
			}
		}
	}
	assert.Len(t, got.Plan[0].Caches, 3+len(hexkv.Presets())-1)
}

func TestVersion(t *testing.T) {
	out, _, code := hexrun(t, "", "version")
	assert.Equal(t, exitOK, code)
	for _, want := range []string{"hexrun ", "llama.cpp ", "features ", "kernels "} {
		assert.Contains(t, out, want)
	}
	out, _, code = hexrun(t, "", "version", "-o", "json")
	assert.Equal(t, exitOK, code)
	var v versions
	require.NoError(t, json.Unmarshal([]byte(out), &v))
	assert.Equal(t, hexkv.Version().Version, v.Version)
}
