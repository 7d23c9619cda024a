package needle

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNew(t *testing.T) {
	for _, kind := range Kinds {
		seen := map[string]bool{}
		for n := range 100 {
			q, err := New(kind, n)
			require.NoError(t, err)
			again, _ := New(kind, n)
			assert.Equal(t, q, again)
			text := strings.Join(q.Facts, "")
			assert.NotEqual(t, q.Right, q.Wrong)
			assert.Equal(t, 1, strings.Count(text, q.Right), "the right answer is in the text once")
			assert.Equal(t, kind == "multikey", strings.Contains(text, q.Wrong))
			assert.Len(t, q.Facts, map[string]int{"needle": 1, "multikey": 8}[kind])
			seen[q.Right] = true
		}
		assert.Len(t, seen, 100)
	}
	_, err := New("haystack", 1)
	assert.ErrorContains(t, err, "use needle or multikey")
}

func TestRead(t *testing.T) {
	line := `{"input": "One of the special magic uuids for a is: A1. One of the special magic uuids for b is: B2. What is it? It is", "outputs": ["A1"]}`
	got, err := Read("x", strings.NewReader(line+"\n\n"+line+"\n"+line+"\n"), 2)
	require.NoError(t, err)
	require.Len(t, got, 2)
	assert.Equal(t, " A1.", got[0].Right)
	assert.Equal(t, " B2.", got[0].Wrong)
	for bad, want := range map[string]string{
		"":                                       "holds no question",
		"{":                                      "line 1 is no JSON object",
		`{"input": "x"}`:                         "has no input or outputs",
		`{"input": "x", "outputs": ["y"]}`:       "hides no second fact",
		fmt.Sprintf("%s\n[1]", line):             "line 2 is no JSON object",
		`{"input": "for a is: y.","outputs":[]}`: "has no input or outputs",
	} {
		_, err := Read("x", strings.NewReader(bad), 9)
		assert.ErrorContains(t, err, want)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(`{"input": "special magic uuids for a is: A1. special magic uuids for b is: B2.", "outputs": ["A1"]}`)
	f.Fuzz(func(t *testing.T, text string) {
		all, err := Read("x", strings.NewReader(text), 10)
		assert.True(t, (err == nil) == (len(all) > 0))
		for _, q := range all {
			assert.NotEqual(t, q.Right, q.Wrong)
		}
	})
}
