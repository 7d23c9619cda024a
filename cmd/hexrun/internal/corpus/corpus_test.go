package corpus

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
)

func TestText(t *testing.T) {
	assert.True(t, utf8.ValidString(Text))
	assert.Greater(t, len(Text), 45_000)
	assert.True(t, strings.HasPrefix(Text, "Query 1. Do not Bodies act upon Light at a distance"))
	assert.NotContains(t, Text, "_")
	assert.NotContains(t, Text, "\r")
}
