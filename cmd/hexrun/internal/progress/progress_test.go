package progress

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestBar(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	b := New(&out, true)
	b.now = func() time.Time { return now }
	take := func() string { defer out.Reset(); return out.String() }

	b.Set(0.5, "f16 prefill 10")
	assert.Equal(t, "\r\x1b[K"+strings.Repeat("█", 12)+strings.Repeat("░", 12)+"  50 %  f16 prefill 10", take())
	b.Set(0.6, "f16 prefill 20")
	assert.Empty(t, take(), "too soon")
	b.Set(0.6, "q8_0 prefill 0")
	assert.Contains(t, take(), "q8_0", "another step is shown at once")
	now = now.Add(time.Second)
	b.Set(7, "q8_0 prefill 20")
	assert.Contains(t, take(), strings.Repeat("█", 24)+" 100 %")
	b.Clear()
	assert.Equal(t, "\r\x1b[K", take())
	b.Clear()
	assert.Empty(t, take())
}

func TestNoTerminal(t *testing.T) {
	b := New(nil, false)
	b.Set(0.5, "nothing")
	b.Clear()
}
