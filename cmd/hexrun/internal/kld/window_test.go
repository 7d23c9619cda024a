package kld

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func someResult(n int) Result {
	r := rand.New(rand.NewPCG(1, 1))
	rows := make([]Row, n)
	for i := range rows {
		rows[i] = Row{KL: r.ExpFloat64() * 1e-7, SameTop: r.IntN(2) == 1, NLL: r.ExpFloat64() / 3}
	}
	rows[n-1].NLL = math.NaN()
	return Result{NCtx: 256, KVBytes: 12345, BitsPerElement: 3.8125, RefinedCells: 17.0 / 3, Rows: rows}
}

func TestResultJSON(t *testing.T) {
	want := someResult(20)
	data, err := json.Marshal(want)
	require.NoError(t, err)
	var got Result
	require.NoError(t, json.Unmarshal(data, &got))
	for i, row := range want.Rows { // to the last bit
		require.Equal(t, math.Float64bits(row.KL), math.Float64bits(got.Rows[i].KL))
		require.Equal(t, row.SameTop, got.Rows[i].SameTop)
		require.Equal(t, math.IsNaN(row.NLL), math.IsNaN(got.Rows[i].NLL))
		if !math.IsNaN(row.NLL) {
			require.Equal(t, math.Float64bits(row.NLL), math.Float64bits(got.Rows[i].NLL))
		}
	}
	assert.NoError(t, got.Check(Window{Tokens: 20}))
	assert.ErrorContains(t, got.Check(Window{Tokens: 21}), "20 values for 21 tokens")
	want.Rows, got.Rows = nil, nil
	assert.Equal(t, want, got)

	for _, c := range []struct{ old, new, want string }{
		{`"kl":[`, `"kl":[1,`, "21, 20 and 19 values"},
		{`"kl":[`, `"kl":["x",`, "cannot unmarshal"},
		{`"kl":[`, `"more":1,"kl":[`, "unknown field"},
		{`"same_top":"1`, `"same_top":"2`, "same_top has '2'"},
		{`"same_top":"0`, `"same_top":"2`, "same_top has '2'"},
	} {
		if !strings.Contains(string(data), c.old) {
			continue
		}
		err := json.Unmarshal([]byte(strings.Replace(string(data), c.old, c.new, 1)), &got)
		assert.ErrorContains(t, err, c.want)
	}
	assert.Error(t, json.Unmarshal([]byte("{}"), &got), "no rows")
	bad := someResult(2)
	bad.Rows[0].KL = math.NaN()
	_, err = json.Marshal(bad)
	assert.Error(t, err, "no number")
}
