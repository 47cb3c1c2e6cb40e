"""One HTML page of a run or a sweep of `qnas-search`: `page.write_report`.

Reading:  search/runs/log_records.py -> run_record.py, sweep_record.py
Drawing:  graph.py (what is drawn) -> layout.py (where) -> drawing.py (how)
          alphas.py, curves.py, front_chart.py -> plots.py (matplotlib); crops.py; colours.py for all of them
Pages:    run_page.py, sweep_page.py -> page.py
"""
