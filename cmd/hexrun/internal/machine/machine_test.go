package machine

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestBusyIn(t *testing.T) {
	busy, ok := busyIn("cpu  100 20 30 99999 888 4 5 6 0 0\ncpu0 1 2 3\n")
	assert.True(t, ok)
	assert.InDelta(t, 1.65, busy, 1e-9, "not idle, not waiting")
	for _, bad := range []string{"", "cpu 1 2 3\n", "intr 1 2 3 4 5 6 7 8 9\n", "cpu a b c d e f g h\n"} {
		_, ok := busyIn(bad)
		assert.False(t, ok, bad)
	}
}

// What this process itself does is nobody else's.
func TestOthers(t *testing.T) {
	o := Watch()
	n, start := 0, time.Now()
	for time.Since(start) < 300*time.Millisecond {
		n++
	}
	own := ownSeconds() - o.own0
	assert.Greater(t, own, 0.05, n)
	all := o
	all.own0 += own // as if it were somebody else's
	mine, ok := o.Cores()
	both, _ := all.Cores()
	if ok {
		assert.GreaterOrEqual(t, both, mine)
		assert.GreaterOrEqual(t, mine, 0.0)
	}
}
