package records

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type key struct{ A, B int }

func add(t *testing.T, path string, k key, v []string) {
	t.Helper()
	f, err := Open[key, []string]("test", path)
	require.NoError(t, err)
	require.NoError(t, f.Add(k, v))
	require.NoError(t, f.Close())
}

// Cut anywhere in its last line, a file has the lines before, and goes on.
func TestInterrupted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	add(t, path, key{1, 2}, []string{"x <1>"})
	add(t, path, key{1, 3}, nil)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	first := strings.Index(string(whole), "\n") + 1
	require.Positive(t, first)

	for cut := range len(whole) {
		require.NoError(t, os.WriteFile(path, whole[:cut], 0o600))
		f, err := Open[key, []string]("test", path)
		require.NoError(t, err, cut)
		got, ok := f.Find(key{1, 2})
		assert.Equal(t, cut >= first, ok, cut)
		if ok {
			assert.Equal(t, []string{"x <1>"}, got)
		}
		_, ok = f.Find(key{1, 3})
		assert.False(t, ok, "the last line had no end")
		require.NoError(t, f.Close())
		if cut < first {
			add(t, path, key{1, 2}, []string{"x <1>"})
		}
		add(t, path, key{1, 3}, nil)
		again, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, whole, again)
	}
}

func TestMemory(t *testing.T) {
	f, err := Open[key, int]("test", "")
	require.NoError(t, err)
	require.NoError(t, f.Add(key{}, 3))
	got, ok := f.Find(key{})
	assert.True(t, ok)
	assert.Equal(t, 3, got)
	_, ok = f.Find(key{1, 1})
	assert.False(t, ok)
	require.NoError(t, f.Close())
}

type even int

func (e even) Check(k key) error {
	if k.A != int(e) {
		return assert.AnError
	}
	return nil
}

// What is something else is refused, and not changed.
func TestRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	add(t, path, key{1, 2}, []string{"x"})
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	line := string(data)
	for _, c := range []struct{ text, want string }{
		{"my thesis", "is no file of test;"},
		{"\n", "is no file of test;"},
		{`{"kind":"other","key":{},"answer":[]}` + "\n" + line, "is no file of test;"},
		{line + "my thesis", "line 2 of "},
		{line + "\n" + line, "line 2 of "},
		{line[:30] + "\n" + line, "is damaged (it ends early)"},
		{strings.Replace(line, `["x"]`, `[1]`, 1), "is damaged"},
		{strings.Replace(line, `"answer"`, `"more":1,"answer"`, 1), "is damaged"},
		{strings.Replace(line, "\n", "{}\n", 1), "more than one object"},
	} {
		require.NoError(t, os.WriteFile(path, []byte(c.text), 0o600))
		_, err := Open[key, []string]("test", path)
		require.ErrorContains(t, err, c.want)
		assert.Contains(t, err.Error(), "another file with --resume")
		assert.Contains(t, err.Error(), path)
		after, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, c.text, string(after))
	}
	_, err = Open[key, int]("test", t.TempDir())
	assert.ErrorContains(t, err, "is a directory); name one that can be written")
	_, err = Open[key, int]("test", filepath.Join(t.TempDir(), "none", "records"))
	assert.ErrorContains(t, err, "no such file or directory); name one")

	path = filepath.Join(t.TempDir(), "checked")
	f, err := Open[key, even]("test", path)
	require.NoError(t, err)
	require.NoError(t, f.Add(key{1, 0}, 2))
	require.NoError(t, f.Close())
	_, err = Open[key, even]("test", path)
	assert.ErrorContains(t, err, "is damaged ("+assert.AnError.Error()+")")
}

// Whatever the file, it is refused with a sentence, or what it says is said again by the records written anew.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"kind":"test","key":{"A":1,"B":2},"answer":["x"]}` + "\n"))
	f.Add([]byte(`{"kind":"test","key":{"A":1,"B":2},"answer":["x"]}` + "\n" + `{"kind":"te`))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := File[key, []string]{kind: "test", path: "file", answers: map[key][]string{}}
		whole, err := r.parse(data)
		if err != nil {
			require.Contains(t, err.Error(), "file")
			require.Contains(t, err.Error(), "; ")
			return
		}
		require.LessOrEqual(t, whole, len(data))
		path := filepath.Join(t.TempDir(), "records")
		for k, v := range r.answers {
			add(t, path, k, v)
		}
		second, err := Open[key, []string]("test", path)
		require.NoError(t, err)
		defer second.Close()
		require.Equal(t, r.answers, second.answers)
	})
}
