package hexkv

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sentence checks that an error is one that a user can act on: it names the subject and the remedy, in one line.
func sentence(t *testing.T, err error, parts ...string) {
	t.Helper()
	require.Error(t, err)
	text := err.Error()
	assert.NotContains(t, text, "\n")
	assert.Less(t, len(text), 500)
	assert.True(t, strings.Contains(text, ";"), "no remedy in: %s", text)
	for _, p := range parts {
		assert.Contains(t, text, p)
	}
}

func TestBadModelFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		return path
	}
	header := func(version byte, rest ...byte) []byte {
		return append([]byte{'G', 'G', 'U', 'F', version, 0, 0, 0}, rest...)
	}
	many := make([]byte, 16)
	for i := range many {
		many[i] = 0x7f // billions of tensors
	}
	for _, c := range []struct {
		name string
		path string
		want error
	}{
		{"no such file", filepath.Join(dir, "nothing.gguf"), ErrNotFound},
		{"below a file", filepath.Join(write("file", []byte("x")), "model.gguf"), ErrNotFound},
		{"directory", dir, ErrNotGGUF},
		{"zero bytes", write("zero.gguf", nil), ErrNotGGUF},
		{"device", os.DevNull, ErrNotGGUF},
		{"text", write("text.gguf", []byte("this is no model")), ErrNotGGUF},
		{"one byte", write("one.gguf", []byte("x")), ErrNotGGUF},
		{"magic only", write("magic.gguf", []byte("GGUF")), ErrTruncated},
		{"old version", write("old.gguf", header(1)), ErrModel},
		{"future version", write("new.gguf", header(99)), ErrModel},
		{"header only", write("header.gguf", header(3)), ErrTruncated},
		{"absurd counts", write("absurd.gguf", header(3, many...)), ErrTruncated},
		{"empty GGUF", write("empty.gguf", header(3, make([]byte, 16)...)), ErrModel},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := OpenModel(context.Background(), c.path, nil)
			require.ErrorIs(t, err, c.want)
			if c.want != ErrModel {
				sentence(t, err, c.path)
			}
		})
	}
	_, err := OpenModel(context.Background(), filepath.Join(dir, "nothing.gguf"), nil)
	assert.ErrorIs(t, err, fs.ErrNotExist)
	_, err = OpenModel(context.Background(), "model\x00.gguf", nil)
	assert.ErrorIs(t, err, ErrInvalid)
	_, err = OpenModel(context.Background(), "", nil)
	assert.ErrorIs(t, err, ErrInvalid)
}

func TestTruncatedModel(t *testing.T) {
	testModel(t)
	data, err := os.ReadFile(modelPath())
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "cut.gguf")
	for _, n := range []int{7, 20, 200, 5_000, len(data) / 2, len(data) - 1} {
		require.NoError(t, os.WriteFile(path, data[:n], 0o600))
		_, err := OpenModel(context.Background(), path, nil)
		require.ErrorIs(t, err, ErrTruncated, "%d bytes", n)
		sentence(t, err, path, "download it again")
	}
}

func TestBadSessions(t *testing.T) {
	m := testModel(t)
	ctx := context.Background()
	for _, c := range []struct {
		name string
		opts SessionOptions
		want error
		part string
	}{
		{"negative context", SessionOptions{ContextSize: -1}, ErrInvalidConfig, "context size = -1"},
		{"context past int32", SessionOptions{ContextSize: 1 << 40}, ErrInvalidConfig, "ContextSize"},
		{"context past the limit", SessionOptions{ContextSize: 1 << 30}, ErrInvalidConfig, "context size"},
		{"context larger than memory", SessionOptions{ContextSize: 60_000_000}, ErrMemory, "free"},
		{"negative batch", SessionOptions{BatchSize: -1}, ErrInvalidConfig, "batch size"},
		{"ubatch over batch", SessionOptions{BatchSize: 64, UBatchSize: 128}, ErrInvalidConfig, "ubatch"},
		{"too many threads", SessionOptions{Threads: 100_000}, ErrInvalidConfig, "threads"},
		{"unknown preset", SessionOptions{Cache: Config{Preset: "gigantic"}}, ErrInvalidConfig, "'gigantic' is unknown; use one of off"},
		{"preset off and heavy", SessionOptions{Cache: Config{Preset: "off", Heavy: Ptr(0.1)}}, ErrInvalidConfig, "heavy is set but HEX is off"},
		{"preset and q8_0", SessionOptions{Cache: Config{Preset: "balanced", TypeK: "q8_0"}}, ErrInvalidConfig, "q8_0"},
		{"unknown type", SessionOptions{Cache: Config{TypeV: "q9"}}, ErrInvalidConfig, "q9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := m.NewSession(ctx, &c.opts)
			require.ErrorIs(t, err, c.want)
			sentence(t, err, c.part)
			if c.want != ErrMemory {
				_, err = m.Estimate(&c.opts)
				require.ErrorIs(t, err, c.want)
			}
		})
	}
}

func TestInvalidUTF8(t *testing.T) {
	m := tiny{arch: "llama", template: chatML}.open(t)
	for _, text := range []string{"abc\xff", "\xc0\x80", "\xed\xa0\x80", "\xf5\x80\x80\x80", "half \xe2\x82"} {
		_, err := m.Tokenize(text, TokenizeOptions{})
		require.ErrorIs(t, err, ErrInvalidUTF8, "%q", text)
		sentence(t, err, "offset")
		_, err = m.ApplyTemplate([]Message{{RoleUser, text}}, true)
		require.ErrorIs(t, err, ErrInvalidUTF8, "%q", text)
	}
	tokens, err := m.Tokenize("with a NUL \x00 inside, and \u00e9\U0001f600", TokenizeOptions{})
	require.NoError(t, err)
	text, err := m.Detokenize(tokens)
	require.NoError(t, err)
	assert.Contains(t, text, "\u00e9\U0001f600")
}

func TestBadGrammars(t *testing.T) {
	m := tiny{arch: "llama"}.open(t)
	for grammar, part := range map[string]string{
		"root = \"a\"":               "::=",
		"a ::= \"x\"":                "no rule 'root'",
		"root ::= missing":           "'missing'",
		"root ::= root \"a\"":        "left recursion",
		"root ::= (\"a\"":            ")",
		"root ::= \"a":               "end",
		"root ::= [a-":               "",
		strings.Repeat("(", 100_000): "",
		"root ::= \"a\"{99999999}":   "repetition",
		"root ::= \"a\"\nroot":       "line 2",
		"root ::= \xff":              "UTF-8",
		"root ::= \"a\"\x00":         "NUL",
		"# nothing":                  "root",
		"root ::= " + strings.Repeat("(", 5000) + "\"a\"" + strings.Repeat(")", 5000): "parentheses",
	} {
		_, err := m.NewSampler(Sampling{Grammar: grammar})
		require.Error(t, err, "%.40q", grammar)
		assert.True(t, errors.Is(err, ErrGrammar) || errors.Is(err, ErrInvalidUTF8), "%v", err)
		assert.Contains(t, err.Error(), part)
		assert.NotContains(t, err.Error(), "\n")
	}
}
