package records

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type key struct{ A, B int }

func TestRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	f, err := Open[key, []string]("test", path)
	require.NoError(t, err)
	require.NoError(t, f.Add(key{1, 2}, []string{"x"}))
	require.NoError(t, f.Add(key{1, 3}, nil))
	require.NoError(t, f.Close())
	whole, err := os.ReadFile(path)
	require.NoError(t, err)

	for cut := range len(whole) { // interrupted at any byte
		require.NoError(t, os.WriteFile(path, whole[:cut], 0o666))
		f, err := Open[key, []string]("test", path)
		if err != nil {
			assert.ErrorContains(t, err, "name another file")
			kept, _ := os.ReadFile(path)
			assert.Equal(t, whole[:cut], kept, "a file that is refused stays as it is")
			continue
		}
		require.NoError(t, f.Add(key{9, 9}, []string{"y"}))
		require.NoError(t, f.Close())
		f, err = Open[key, []string]("test", path)
		require.NoError(t, err)
		got, ok := f.Find(key{9, 9})
		assert.True(t, ok)
		assert.Equal(t, []string{"y"}, got)
		f.Close()
	}
	require.NoError(t, os.WriteFile(path, whole, 0o666))
	_, err = Open[key, []string]("other", path)
	assert.ErrorContains(t, err, "is not from other; delete the line, or name another file with --resume")
	_, err = Open[key, []string]("test", t.TempDir())
	assert.ErrorContains(t, err, "name one that can be written")

	memory := New[key, int]("test")
	require.NoError(t, memory.Add(key{}, 3))
	got, ok := memory.Find(key{})
	assert.True(t, ok)
	assert.Equal(t, 3, got)
	_, ok = memory.Find(key{1, 1})
	assert.False(t, ok)
	require.NoError(t, memory.Close())
}
