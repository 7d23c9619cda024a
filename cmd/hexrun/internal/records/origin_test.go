package records

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOrigin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.gguf")
	require.NoError(t, os.WriteFile(path, []byte("weights"), 0o600))
	t.Setenv("HEXKV_COARSE", "")
	want, err := NewOrigin("1.0 ref", path, -1, 2)
	require.NoError(t, err)
	assert.Len(t, want.Build, 64)
	assert.True(t, want.Coarse)
	assert.Equal(t, "a.gguf", want.Model)
	assert.EqualValues(t, 7, want.ModelBytes)
	got, err := NewOrigin("1.0 ref", path, -1, 2)
	require.NoError(t, err)
	assert.Equal(t, want, got)

	other := func(gpuLayers, threads int) Origin {
		o, err := NewOrigin("1.0 ref", path, gpuLayers, threads)
		require.NoError(t, err)
		return o
	}
	assert.NotEqual(t, want, other(0, 2))
	assert.NotEqual(t, want, other(-1, 1))
	t.Setenv("HEXKV_COARSE", "0")
	assert.NotEqual(t, want, other(-1, 2))
	t.Setenv("HEXKV_COARSE", "1")
	assert.Equal(t, want, other(-1, 2), "only 0 switches it off")
	require.NoError(t, os.WriteFile(path, []byte("weighty"), 0o600))
	assert.NotEqual(t, want, other(-1, 2), "same name and size")

	_, err = NewOrigin("1.0 ref", path+"x", -1, 2)
	assert.NoError(t, err, "opening the model says that it is missing")
}

// Of a large file blocks are read: a change of a thousandth of it is always seen, and so are both ends.
func TestModelHash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "large.gguf")
	const size = 3*hashBlock*hashBlocks + 12345
	file, err := os.Create(path)
	require.NoError(t, err)
	defer file.Close()
	require.NoError(t, file.Truncate(size)) // sparse
	got, before, err := ModelHash(path)
	require.NoError(t, err)
	assert.EqualValues(t, size, got)
	patch := make([]byte, size/1000+hashBlock)
	for i := range patch {
		patch[i] = 1
	}
	for _, at := range []int64{0, size / 2, size - int64(len(patch))} {
		_, err = file.WriteAt(patch, at)
		require.NoError(t, err)
		_, after, err := ModelHash(path)
		require.NoError(t, err)
		assert.NotEqual(t, before, after, at)
		before = after
	}
	_, err = file.WriteAt([]byte{7}, size-1)
	require.NoError(t, err)
	_, after, err := ModelHash(path)
	require.NoError(t, err)
	assert.NotEqual(t, before, after, "the last byte")
}
